package uefi

// Checksum is checksum, for tests of another package.
var Checksum = checksum

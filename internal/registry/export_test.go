package registry

// Parse is parse, for tests of another package.
var Parse = parse

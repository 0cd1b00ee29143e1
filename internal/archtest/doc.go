// Package archtest holds no code, only tests: they read the source of the whole
// module and fail when it leaves the architecture. What is allowed stands in
// rules_test.go as data; changing it is a visible line in a diff.
package archtest

//go:build linux || darwin

// Package interop tests programs of every kind against each other: Go agents in each mode, agents and
// sidecars that know no extensions, Python, Node and a browser. There is nothing in it but tests.
//
// Every program is a party: it takes commands and says what happens, line by line, in the words that the
// README files of the examples in other languages explain. So one table of cells drives them all.
package interop

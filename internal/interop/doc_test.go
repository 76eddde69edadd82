//go:build linux || darwin

// Package interop tests programs of every kind against each other: Go agents in each mode, agents and
// sidecars that know no extensions, Python, Node and a browser. It contains only tests. By default the diagonal of
// the table and a few others run; MESH_TEST_FULL=1 runs all of them.
//
// Every program is a party: it takes commands and prints events, line by line, in the format that the
// README files of the examples in other languages describe. So one table of cells drives them all.
package interop

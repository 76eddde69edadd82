#!/usr/bin/env bash
# Runs the tests with the race detector, in random order. Arguments go to go test: flags, and packages
# if not all of them are wanted, as in: ci/test.sh -count=3 -run Conformance .
# The race detector needs a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(./...)
for arg in "$@"; do
	case $arg in . | ./*) packages=() ;; esac
done
# The odd expansion is for macOS, whose old bash takes an empty array for an unset variable.
exec go test -race -shuffle=on "$@" ${packages[@]+"${packages[@]}"}

#!/usr/bin/env bash
# Runs the tests with the race detector, in random order: those of a plain go test ./..., or all of them
# with MESH_TEST_FULL=1, which needs the programs that ci/setup.sh installs. Arguments go to go test:
# flags, and packages if not all of them are wanted, as in: ci/test.sh -count=3 -run Conformance .
# The race detector needs a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

export GORACE="atexit_sleep_ms=0 ${GORACE:-}" # or every process that a test starts takes a second to end
test=(go test -race -shuffle=on -timeout 20m "$@")
for arg in "$@"; do
	case $arg in . | ./*) exec "${test[@]}" ;; esac
done
# Packages that start browsers and many programs wait most of the time. They come last, beside each other only.
crowds='/internal/interop$|/examples/browser$|/meshdebug$'
packages=$(go list ./... ./cmd/mesh/...)
# shellcheck disable=SC2046 # a list of packages, none of which has spaces
"${test[@]}" $(grep -Ev "$crowds" <<<"$packages")
# shellcheck disable=SC2046
"${test[@]}" -p 2 $(grep -E "$crowds" <<<"$packages")
# What is a module of its own, "$@" being flags.
for mod in otelmesh/go.mod examples/*/go.mod; do
	echo "--- ${mod%/go.mod}"
	(cd "${mod%/go.mod}" && "${test[@]}" ./...)
done

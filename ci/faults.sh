#!/usr/bin/env bash
# Runs the table of faults (internal/faults): prints one line per row, and fails if one does. Arguments go to the program: -quick, -times,
# -seed N, -run REGEXP, -list; with -race first it is built with the race detector, which makes times worthless.
# For Linux. A row that needs namespaces or nft is skipped where there are none; with MESH_TEST_FULL=1 it fails.
set -euo pipefail
cd "$(dirname "$0")/.."

race=()
if [ "${1:-}" = -race ]; then
	race=(-race)
	shift
fi
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build "${race[@]}" -o "$bin/faults" ./internal/faults
GORACE="atexit_sleep_ms=0 ${GORACE:-}" "$bin/faults" "$@"

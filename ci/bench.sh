#!/usr/bin/env bash
# Runs every benchmark a few times, to check that it still works. The numbers are not meant to be compared:
# for that, run one benchmark alone and for longer. Arguments are packages.
set -euo pipefail
cd "$(dirname "$0")/.."

go test -run '^$' -bench . -benchtime 10x -benchmem "${@:-./...}"
if [ $# = 0 ]; then
	# The comparisons are a module of their own: its tests, and one short round.
	charts=$(mktemp -d)
	trap 'rm -rf "$charts"' EXIT
	(cd bench && go vet ./... && go test ./... && go run . -quick -rounds 1 -plot "$charts" &&
		go run . -wan -quick -rounds 1 -run 'wan_20ms_loss1|wan_join|10mbit' -plot "$charts") # the other paths are slow
fi

#!/usr/bin/env bash
# Checks that the Go files are formatted and that every go.mod is tidy. Changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$("$(go env GOROOT)/bin/gofmt" -l .)
if [ -n "$unformatted" ]; then
	printf 'These files are not formatted; run gofmt -w on them:\n%s\n' "$unformatted" >&2
	exit 1
fi

find . -name go.mod -not -path '*/testdata/*' | sort | while read -r mod; do
	dir=$(dirname "$mod")
	if ! (cd "$dir" && go mod tidy -diff); then
		echo "$mod is not tidy; run go mod tidy in $dir" >&2
		exit 1
	fi
done

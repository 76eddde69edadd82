#!/usr/bin/env bash
# Checks that the Go files are formatted and that every go.mod is tidy. Changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$("$(go env GOROOT)/bin/gofmt" -l .)
if [ -n "$unformatted" ]; then
	printf 'These files are not formatted; run gofmt -w on them:\n%s\n' "$unformatted" >&2
	exit 1
fi

root=$PWD
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
find . -name go.mod -not -path '*/testdata/*' | sort | while read -r mod; do
	dir=$(dirname "$mod")
	# cmd/mesh has no replace line, so that go install can install it; the one of go.work stands in for it.
	cp "$mod" "$dir/go.sum" "$copy/"
	[ "$dir" != ./cmd/mesh ] || go mod edit -replace "github.com/chatixia-ai/mesh=$root" "$copy/go.mod"
	if ! (cd "$dir" && GOWORK=off go mod tidy -modfile="$copy/go.mod" -diff); then
		echo "$mod is not tidy: what is missing or too much stands above" >&2
		exit 1
	fi
done

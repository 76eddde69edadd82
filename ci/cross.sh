#!/usr/bin/env bash
# Compiles everything, tests included, for the supported systems but linux/amd64, where all other steps run, and links the
# commands.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export CGO_ENABLED=0

for target in linux/arm64 darwin/arm64 windows/amd64; do
	echo "--- $target"
	export GOOS=${target%/*} GOARCH=${target#*/}
	go vet ./... ./cmd/mesh/... # compiles the tests too
	# -buildvcs=false: these binaries are thrown away, and a checkout without .git can be built too.
	go build -buildvcs=false -o "$out/$GOOS-$GOARCH/" ./cmd/... ./cmd/mesh
done

# In a browser the library compiles, and New says what to use there instead.
echo "--- js/wasm"
GOOS=js GOARCH=wasm go build ./...

#!/usr/bin/env bash
# Writes a list of parts (SBOM, CycloneDX in JSON) for each command of this repository: the modules that are linked into
# it, with versions and hashes, and the standard library. The files go to the directory that is named, by default sbom/,
# as <command>.cdx.json. GOOS and GOARCH choose another system. Needs the Go module proxy once, for the tool.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 # not in ci/tools/go.mod: see decision 0055

out=${1:-sbom}
mkdir -p "$out"
out=$(cd "$out" && pwd)
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
version=$(git describe --tags --always --dirty)

for mod in $(git ls-files -- 'go.mod' '*/go.mod' | grep -v /testdata/); do
	dir=$(dirname "$mod")
	for command in $(cd "$dir" && go list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./... | grep /cmd/ || true); do
		name=$(basename "$command")
		(cd "$dir" && go build -trimpath -buildvcs=false -o "$bin/$name" "$command")
		# The tool runs here, whatever system the command is for.
		GOOS='' GOARCH='' GOWORK=off go run "$tool" bin -json -std -version "$version" -output "$out/$name.cdx.json" "$bin/$name"
		echo "$out/$name.cdx.json"
	done
done

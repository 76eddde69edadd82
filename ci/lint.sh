#!/usr/bin/env bash
# Checks the code without running it: go vet, staticcheck (pinned in ci/tools/go.mod, checks chosen in
# staticcheck.conf), the direction of imports, and that everything exported is documented.
# Needs the Go release that ci/tools/go.mod names.
set -euo pipefail
cd "$(dirname "$0")/.."

go vet ./...
go tool -modfile=ci/tools/go.mod staticcheck ./...
ci/imports.sh
root=$PWD
(cd ci/tools && go vet ./... && go run ./undocumented "$root")

#!/usr/bin/env bash
# Checks the code without running it: go vet, staticcheck (pinned in ci/tools/go.mod, checks chosen in
# staticcheck.conf), the direction of imports, that everything exported is documented, and that the documents
# name files that exist.
# Needs the Go release that ci/tools/go.mod names.
set -euo pipefail
cd "$(dirname "$0")/.."

go vet ./...
go tool -modfile=ci/tools/go.mod staticcheck ./...
ci/imports.sh
root=$PWD
(cd ci/tools && go vet ./... && go test ./docfiles && go run ./undocumented "$root")

docfiles() { (cd ci/tools && go run ./docfiles "$root" "$@"); }
# shellcheck disable=SC2046 # a list of files, none of which has spaces
docfiles links $(git ls-files '*.md')
docfiles files docs/architecture.md . internal/identity internal/link internal/sidecar internal/spawn

#!/usr/bin/env bash
# Checks the code without running it: go vet, staticcheck (pinned in ci/tools/go.mod, checks chosen in
# staticcheck.conf), the direction of imports, that everything exported is documented, and that the documents
# name files and tests that exist.
# Needs the Go release that ci/tools/go.mod names.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
# ci/tools is not in go.work, which must do with an older Go release.
tools() { (cd ci/tools && GOWORK=off go "$@"); }

packages=(./... ./cmd/mesh/...)
go vet "${packages[@]}"
staticcheck=$(tools tool -n staticcheck)
"$staticcheck" "${packages[@]}"
for mod in otelmesh/go.mod otelmesh/internal/collector/go.mod examples/*/go.mod; do # those that stand by themselves
	(cd "${mod%/go.mod}" && go vet ./... && "$staticcheck" ./...)
done
ci/imports.sh
tools vet ./...
tools test ./docfiles
tools run ./undocumented "$root"

docfiles() { tools run ./docfiles "$root" "$@"; }
# shellcheck disable=SC2046 # a list of files, none of which has spaces
docfiles links $(git ls-files '*.md')
# The threat model names tests, in their packages.
missing=$(grep -oE '`(Test|Fuzz)[A-Za-z]+`' docs/threat-model.md | tr -d '`' | sort -u | while read -r name; do
	git grep -qE "^func $name\(" -- '*_test.go' || echo "docs/threat-model.md: there is no test $name"
done)
if [ -n "$missing" ]; then
	printf '%s\n' "$missing" >&2
	exit 1
fi
docfiles files docs/architecture.md . internal/identity internal/link internal/sidecar internal/spawn

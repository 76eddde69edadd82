#!/usr/bin/env bash
# Installs what the other scripts need besides Go: the modules, the C compiler of go test -race, and the
# programs that docs/by-hand.md shows.
set -euo pipefail
cd "$(dirname "$0")/.."

go version
missing=()
command -v "$(go env CC)" >/dev/null || missing+=(gcc libc6-dev)
command -v nc >/dev/null || missing+=(netcat-openbsd)
command -v jq >/dev/null || missing+=(jq)
if [ ${#missing[@]} != 0 ]; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -qq
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
"$(go env CC)" --version | head -n 1
go mod download

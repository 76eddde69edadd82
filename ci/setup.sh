#!/usr/bin/env bash
# Installs what the other scripts need besides Go: the modules, and the C compiler of go test -race.
set -euo pipefail
cd "$(dirname "$0")/.."

go version
if ! command -v "$(go env CC)" >/dev/null; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -qq
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev
fi
"$(go env CC)" --version | head -n 1
go mod download

#!/usr/bin/env bash
# Installs what the other scripts need besides Go: the modules, the C compiler of go test -race, the
# programs that docs/by-hand.md shows, and those that the tests and ci/faults.sh need if MESH_TEST_FULL is set, packages of
# npm and PyPI included.
set -euo pipefail
cd "$(dirname "$0")/.."

go version
missing=()
command -v "$(go env CC)" >/dev/null || missing+=(gcc libc6-dev)
command -v nc >/dev/null || missing+=(netcat-openbsd)
command -v jq >/dev/null || missing+=(jq)
command -v python3 >/dev/null || missing+=(python3)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v chromium >/dev/null || missing+=(chromium)
command -v ip >/dev/null || missing+=(iproute2)
command -v nft >/dev/null || missing+=(nftables)
command -v curl >/dev/null || missing+=(curl)
command -v ssh >/dev/null || missing+=(openssh-client)
[ -x /usr/sbin/sshd ] || missing+=(openssh-server)
[ -x /usr/sbin/nginx ] || missing+=(nginx)
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} != 0 ]; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then # the tests start what they need: no package starts its service
		trap '$sudo rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
		$sudo chmod 755 "$policy"
	fi
	$sudo apt-get update -qq
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
"$(go env CC)" --version | head -n 1
ci/stacks.sh # the other WebRTC stacks
ci/mcp.sh    # the Python SDK of MCP
GOWORK=off go mod download # in a workspace it would write a go.work.sum that no build needs

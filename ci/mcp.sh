#!/usr/bin/env bash
# Installs the Python SDK of MCP, at the versions of cmd/mesh/testdata/mcp/requirements.txt, and prints the Python that has it. It
# is outside of the checkout, so that the next one finds it: with the same versions nothing is installed again.
set -euo pipefail
cd "$(dirname "$0")/../cmd/mesh/testdata/mcp"

versions=$(sha256sum <requirements.txt | cut -c1-16)
all=${XDG_CACHE_HOME:-$HOME/.cache}/chatixia-mesh-mcp
dir=$all/$versions
if [ ! -d "$dir" ]; then
	mkdir -p "$all"
	made=$(mktemp -d "$all/new.XXXXXX")
	trap 'rm -rf "$made"' EXIT
	python3 -m venv "$made/venv"
	"$made/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r requirements.txt >&2
	mv -T "$made" "$dir" 2>/dev/null || [ -d "$dir" ] # another one may have been faster
fi
printf '%s\n' "$dir/venv/bin/python"

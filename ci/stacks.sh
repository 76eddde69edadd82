#!/usr/bin/env bash
# Installs the WebRTC stacks of internal/interop/stacks, at the versions of their lock files, and prints the directory. It is
# outside of the checkout, so that the next one finds it: with the same lock files nothing is installed again.
set -euo pipefail
cd "$(dirname "$0")/../internal/interop/stacks"

versions=$(cat package.json package-lock.json requirements.txt | sha256sum | cut -c1-16)
all=${XDG_CACHE_HOME:-$HOME/.cache}/chatixia-mesh-stacks
dir=$all/$versions
if [ ! -d "$dir" ]; then
	mkdir -p "$all"
	made=$(mktemp -d "$all/new.XXXXXX")
	trap 'rm -rf "$made"' EXIT
	cp package.json package-lock.json "$made"
	npm ci --prefix "$made" --no-audit --no-fund --loglevel error >&2
	python3 -m venv "$made/venv"
	"$made/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r requirements.txt >&2
	mv -T "$made" "$dir" 2>/dev/null || [ -d "$dir" ] # another one may have been faster
fi
printf '%s\n' "$dir"

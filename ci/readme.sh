#!/usr/bin/env bash
# Runs the commands that the README shows (go run ./..., go test ./...) as a newcomer would, and checks
# that they leave nothing behind: no process, no socket, no file in the temporary directories. Its console
# blocks are console.sh's.
# For Linux and macOS.
set -euo pipefail
cd "$(dirname "$0")/.."

commands=$(sed -n '/^```sh/,/^```/p' README.md | grep -E '^go (run|test) \./[^ ]*( |$)' | sed 's/ *#.*//' | awk '!seen[$0]++' || true)
for wanted in 'go run ./examples/quickstart' 'go test ./...'; do
	if ! grep -qxF -- "$wanted" <<<"$commands"; then
		echo "README.md shows no command '$wanted' in a block marked sh." >&2
		exit 1
	fi
done

# In /tmp and not in the usual temporary directory, which on macOS is too deep for a socket.
root=$(cd "$(mktemp -d /tmp/mesh-readme.XXXXXX)" && pwd -P)
mkdir "$root/tmp" "$root/build"
mkdir -m 700 "$root/run"
trap 'rm -rf "$root"' EXIT

# Everything that the commands start is compiled into $root and runs from there.
leftovers() {
	find "$root/tmp" "$root/run" -mindepth 1
	if [ -d /proc/self ]; then
		for exe in /proc/[0-9]*/exe; do
			local path
			path=$(readlink "$exe" 2>/dev/null) || continue
			case $path in "$root"/*) echo "process $(basename "$(dirname "$exe")"): $path" ;; esac
		done
	else
		ps -Ao pid=,comm= | grep -F "$root/" || true
	fi
}

while read -r command; do
	printf '$ %s\n' "$command"
	# shellcheck disable=SC2086 # the command is split into words
	env -u MESH_TEST_FULL TMPDIR="$root/tmp" GOTMPDIR="$root/build" XDG_RUNTIME_DIR="$root/run" $command </dev/null
	left=$(leftovers)
	if [ -n "$left" ]; then
		printf '%s left behind:\n%s\n' "$command" "$left" >&2
		exit 1
	fi
done <<<"$commands"

#!/usr/bin/env bash
# Runs the blocks marked `console` in Markdown files exactly as printed, and checks the output. Arguments are
# the files, by default all that have such blocks. ci/tools/console/main.go explains what a block means. The
# examples use TCP port 8080.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# = 0 ]; then
	while IFS= read -r file; do set -- "$@" "$file"; done < <(git grep -l '^```console$' -- '*.md')
fi
if [ $# = 0 ]; then
	echo "No Markdown file has a block marked console." >&2
	exit 1
fi

# By their names and not as a package: ci/tools needs a newer Go release than the library.
dir=ci/tools/console
go test "$dir"/*.go
go run "$dir/main.go" "$dir/markdown.go" "$dir/terminal.go" "$@"

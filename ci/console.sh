#!/usr/bin/env bash
# Does what the blocks marked `console` in Markdown files show, as printed, and checks what comes back.
# Arguments are the files, by default all that have such blocks. What a block means stands in
# ci/tools/console/main.go. The examples use TCP port 8080.
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

#!/usr/bin/env bash
# Looks for known vulnerabilities that this code reaches, in every module and for every system that users have:
# govulncheck, pinned in ci/tools/go.mod. It asks the Go vulnerability database and so needs the network, which is why
# .ci/run does not run it. Arguments go to govulncheck, such as -db with a copy of the database, or -show verbose.
# Status 1: a vulnerability was found. Status 2: the code could not be checked, which says nothing about it.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
(cd ci/tools && GOWORK=off go build -o "$bin/" golang.org/x/vuln/cmd/govulncheck) || exit 2

found=0
for mod in $(git ls-files -- 'go.mod' '*/go.mod' | grep -v /testdata/); do
	dir=$(dirname "$mod")
	case $dir in
	bench | ci/* | otelmesh/internal/*) systems=$(go env GOHOSTOS) ;; # only we run them
	*) systems="linux darwin windows" ;;
	esac
	for os in $systems; do
		echo "--- $dir for $os"
		status=0
		GOOS=$os CGO_ENABLED=0 "$bin/govulncheck" -C "$dir" "$@" ./... || status=$?
		case $status in
		0) ;;
		3) found=1 ;; # govulncheck's own word for it
		*)
			echo "ci/vuln.sh: $dir could not be checked, see above: nothing is known about its vulnerabilities." >&2
			echo "The vulnerability database has to be reachable, or be named: ci/vuln.sh -db file:///path" >&2
			exit 2
			;;
		esac
	done
done
exit $found

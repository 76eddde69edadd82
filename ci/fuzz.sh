#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME (default 3s): a smoke test that finds what is easy to find. An
# input that fails is kept by go under testdata/fuzz; commit it with the fix. Arguments are packages.
set -euo pipefail
cd "$(dirname "$0")/.."

fuzztime=${FUZZTIME:-3s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() { # package, target
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$fuzztime" -fuzzminimizetime 5s "$1" 2>&1 | tee "$log"
}

if ! listed=$(go test -list '^Fuzz' "${@:-./...}"); then
	printf '%s\n' "$listed" >&2
	exit 1
fi
# go test -list prints the targets of a package and then a line "ok package time".
targets=$(awk '/^Fuzz/ { names[n++] = $1 } $1 == "ok" { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }' <<<"$listed")
if [ -z "$targets" ]; then
	echo "There is no fuzz target." >&2
	exit 1
fi

while read -r package target; do
	echo "--- $package $target"
	fuzz "$package" "$target" && continue
	# A worker that is busy when the time is up is sometimes reported as a failure with no failing input.
	if ! grep -q 'context deadline exceeded' "$log" || grep -q 'Failing input' "$log"; then
		exit 1
	fi
	echo "--- once more"
	fuzz "$package" "$target"
done <<<"$targets"

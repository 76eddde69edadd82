#!/usr/bin/env bash
# Runs every fuzz target: a smoke test that finds what is easy to find. Those in Go are found by go test -list, those of
# the examples in other languages by their names (internal/interop/readers). Each gets FUZZTIME; without it they share
# a minute, at most 3 s each. A target with fewer than FUZZEXECS executions (default 100) by then, as on a busy
# machine, goes on until it has them; the seeds do not count. An input that fails is kept by go under testdata/fuzz; commit
# it with the fix. Arguments are packages, which leave the other languages out.
set -euo pipefail
cd "$(dirname "$0")/.."

share=60 # seconds
fuzzexecs=${FUZZEXECS:-100}
log=$(mktemp)
report=$(mktemp)
trap 'rm -f "$log" "$report"' EXIT

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
count=$(wc -l <<<"$targets")
seconds=$((share / count > 3 ? 3 : share / count < 1 ? 1 : share / count))
fuzztime=${FUZZTIME:-${seconds}s}

# Ten executions are enough to make an input smaller that only adds coverage. By default go takes a minute for each,
# which for a slow target, or one whose coverage differs from run to run, is all the time there is.
fuzz() { # package, target, time or number of executions
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$3" -fuzzminimizetime 10x "$1" 2>&1 | tee "$log"
}

# First of all go executes what it knows: the seeds, and what it has kept in its cache.
known() { sed -n 's|.*gathering baseline coverage: [0-9]*/\([0-9]*\) completed.*|\1|p' "$log" | tail -n 1 | grep . || echo 0; }

# Prints how many it will execute so the next time: what it has kept of this run is among them.
kept() { sed -n 's|.*(total: \([0-9]*\)).*|\1|p' "$log" | tail -n 1 | grep . || known; }

# Prints the executions of new inputs.
executions() {
	local all
	all=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
	echo $((${all:-0} > $(known) ? ${all:-0} - $(known) : 0))
}

run() { # package, target, time or number of executions
	fuzz "$@" && return
	# A worker that is busy when the time is up is sometimes reported as a failure with no failing input.
	if ! grep -q 'context deadline exceeded' "$log" || grep -q 'Failing input' "$log"; then
		return 1
	fi
	echo "--- once more"
	fuzz "$@"
}

while read -r package target; do
	echo "--- $package $target"
	run "$package" "$target" "$fuzztime"
	n=$(executions)
	if [ "$n" -lt "$fuzzexecs" ]; then
		echo "--- only $n new inputs in $fuzztime; going on to $fuzzexecs"
		run "$package" "$target" "$(($(kept) + fuzzexecs))x"
		n=$(executions)
	fi
	if [ "$n" -lt "$fuzzexecs" ]; then
		echo "$target of $package has been given $n new inputs, which is no useful run; see above." >&2
		exit 1
	fi
	printf '%10d %s %s\n' "$n" "$package" "$target" >>"$report"
done <<<"$targets"

if [ $# = 0 ]; then
	for reader in internal/interop/readers/fuzz_*; do
		echo "--- $reader"
		case $reader in *.py) language=python3 ;; *.mjs) language=node ;; esac
		FUZZTIME=$fuzztime "$language" "$reader" | tee "$log"
		printf '%10d %s\n' "$(sed -n 's/^fuzz: execs: //p' "$log")" "$reader" >>"$report"
	done
fi
echo "--- new inputs"
cat "$report"

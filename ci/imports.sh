#!/usr/bin/env bash
# Checks which package imports what, the standard library aside. Whatever the table does not list is
# refused, so that a new arrow or a new dependency is a change of this file. Tests may import anything.
# Also checks that docs/decisions names every direct dependency of every module.
set -euo pipefail
cd "$(dirname "$0")/.."

# First the package, then what it may import: . and ./x are packages of this repository, the rest are other
# modules with all of their packages. The first row that matches a package counts.
table='
.                  ./internal/backoff ./internal/cores ./internal/identity ./internal/link ./internal/logs ./internal/pace ./internal/relief ./internal/sidecar ./internal/signal ./internal/sock ./internal/spawn ./internal/strict ./internal/wire github.com/rs/zerolog
./internal/sidecar ./internal/identity ./internal/link ./internal/logs ./internal/relief ./internal/rtc ./internal/signal ./internal/sock ./internal/wire github.com/rs/zerolog
./internal/rtc     ./internal/backoff ./internal/hostaddr ./internal/identity ./internal/logs ./internal/nowait ./internal/pace ./internal/relief ./internal/signal ./internal/sock ./internal/wire github.com/libp2p/go-yamux/v5 github.com/pion github.com/rs/zerolog
./internal/link    ./internal/relief ./internal/sock ./internal/wire
./internal/spawn   github.com/rs/zerolog
./internal/sock    ./internal/nowait golang.org/x/sys
./internal/signal  ./internal/backoff ./internal/logs github.com/coder/websocket github.com/rs/zerolog
./internal/identity golang.org/x/sys
./internal/logs    ./internal/pace github.com/rs/zerolog
./internal/wire
./internal/nowait
./internal/strict
./internal/backoff
./internal/pace
./internal/relief
./internal/hostaddr golang.org/x/sys
./internal/cores
./internal/local
./internal/version
./internal/dotenv  github.com/joho/godotenv github.com/rs/zerolog
./internal/testutil
./internal/testutil/hostile ./internal/rtc ./internal/signal ./internal/testutil ./internal/wire
./internal/testutil/netpath ./internal/signal github.com/coder/websocket
./internal/faults  . ./internal/signal ./internal/testutil ./internal/testutil/netpath ./signaling github.com/coder/websocket github.com/pion golang.org/x/sys
./meshtest         . ./internal/rtc
./meshdebug        . ./internal/local
./signaling        ./internal/local ./internal/logs ./internal/pace ./internal/signal github.com/coder/websocket github.com/golang-jwt/jwt/v5 github.com/rs/zerolog
./cmd/mesh         . ./internal/identity ./internal/sock ./internal/version ./meshdebug ./signaling github.com/rs/zerolog github.com/schollz/progressbar github.com/spf13/cobra golang.org/x/term
./cmd/*            . ./internal/cores ./internal/dotenv ./internal/version ./signaling github.com/rs/zerolog
./examples/*       . ./meshdebug ./signaling
./internal/interop/chromium  github.com/coder/websocket
./internal/interop/readers ./internal/wire
'

module=$(go list -f '{{.Module.Path}}' .)

short() { # import path -> the notation of the table
	case $1 in
	"$module") echo . ;;
	"$module"/*) echo "./${1#"$module"/}" ;;
	*) echo "$1" ;;
	esac
}

# Prints why package $1 may not import $2 (both in the notation of the table), or nothing.
refuse() {
	local room allowed prefix
	while read -r room allowed; do
		# shellcheck disable=SC2254 # a row may be a pattern
		case $1 in $room) ;; *) continue ;; esac
		set -f
		for prefix in $allowed; do
			[ "$2" = "$prefix" ] && return 0
			case $prefix in .*) ;; *) case $2 in "$prefix"/*) return 0 ;; esac ;; esac
		done
		echo "$1 may not import $2; it may import: ${allowed:-only the standard library}"
		return 0
	done <<<"${table:1}"
	echo "$1 has no row in the table of ci/imports.sh"
}

# Each system has files of its own, so each is asked.
imports=$(for os in linux darwin windows; do
	CGO_ENABLED=0 GOOS=$os go list -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}
{{end}}' ./... ./cmd/mesh/... || exit 1
done | sort -u)

failed=0
while read -r pkg imp; do
	case ${imp%%/*} in *.*) ;; *) continue ;; esac # the standard library has no dot in its first element
	why=$(refuse "$(short "$pkg")" "$(short "$imp")")
	if [ -n "$why" ]; then
		echo "import direction: $why" >&2
		failed=1
	fi
done <<<"$imports"

# Prints the direct dependencies that a go.mod names, without host and major version, and the names of its tools.
direct() {
	awk '/^[a-z]/ { block = $1 } /^\)/ { block = "" } /\/\/ indirect/ { next }
		block == "require" { for (i = 1; i < NF; i++) if ($(i + 1) ~ /^v[0-9]/) print $i }
		block == "tool" && $NF ~ /\// { print $NF }' "$1" |
		sed -E 's|/v[0-9]+$||; s|^github\.com/||; s|.*/cmd/||' | grep -vxF "${module#github.com/}" || true
}

while read -r mod; do
	for dependency in $(direct "$mod"); do
		if ! grep -qF -- "$dependency" docs/decisions/[0-9]*.md; then
			echo "dependency: no decision names $dependency of $mod; say in docs/decisions what it is for (0054 has the small ones)" >&2
			failed=1
		fi
	done
done < <(git ls-files -- go.mod '*/go.mod' | grep -v /testdata/)
exit $failed

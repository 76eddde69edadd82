#!/usr/bin/env bash
# Runs every benchmark a few times, so that none can rot. The numbers are not meant to be compared: for
# that, run one benchmark alone and for longer. Arguments are packages.
set -euo pipefail
cd "$(dirname "$0")/.."

exec go test -run '^$' -bench . -benchtime 10x -benchmem "${@:-./...}"

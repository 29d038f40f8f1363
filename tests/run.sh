#!/bin/bash
# Runs all tests that this machine can run, counts what was skipped, and ends with "N passed, N failed".
# STRICT=1 (CI): a skip is a failure, and the classifier is compared with PostgreSQL's own grammar too.
set -uo pipefail
cd "$(dirname "$0")/.."

features=()
if [ "${STRICT:-0}" = 1 ]; then
    export STRICT=1
    features=(--features oracle)
else
    # Tests ask whether it is set at all.
    unset STRICT
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# What takes long is left to its own target of the Makefile.
# A test that lacks a program passes and prints a line that starts with SKIP, so output of passed ones is shown too.
cargo test --no-fail-fast "${features[@]}" "$@" -- --show-output --skip at_length:: 2>&1 | tee "$log" | grep -vE '^(test .* \.\.\. ok|running [0-9]+ tests?|successes:|)$'
status=${PIPESTATUS[0]}
# Each micro benchmark once, so that they do not rot; their program does not know those options.
rot=0
[ "$#" != 0 ] || cargo test "${features[@]}" --bench micro || rot=1

sum() { grep -E '^test result:' "$log" | grep -oE "[0-9]+ $1" | awk '{ total += $1 } END { print total + 0 }'; }
said=$(grep -cE '^SKIP' "$log")
passed=$(($(sum passed) - said))
failed=$(sum failed)

# Tests that race with real servers, signals and timers are given a second chance by themselves, and named if they needed it: a
# test that fails twice is broken, one that is named here often is a bug to look for.
flaky=0
declare -A programs=()
while read -r program name; do
    [ -n "$name" ] || continue
    programs[$program]=1
    echo
    echo "AGAIN: $name"
    if "$program" --exact "$name" --show-output </dev/null; then
        flaky=$((flaky + 1))
        echo "FLAKY: $name failed once and passed alone"
    fi
done < <(awk '/^ *Running .*\(.*\)$/ { program = $NF; gsub(/[()]/, "", program) }
    /^test .* \.\.\. FAILED$/ { print program, $2 }' "$log")
passed=$((passed + flaky))
failed=$((failed - flaky))
skipped=$(($(sum ignored) + said))
binaries=$(grep -cE '^test result:' "$log")

# What did not compile or crashed has no results to count: a program that failed without a test of it that did, or none at all.
targets=$(sed -nE 's/^error: ([0-9]+) targets? failed:$/\1/p' "$log" | tail -1)
if [ "$status" != 0 ] && [ "${targets:-0}" != "${#programs[@]}" ]; then
    failed=$((failed + 1))
    echo "cargo test failed (status $status) beyond single tests: see above"
fi
if [ "$rot" != 0 ]; then
    failed=$((failed + 1))
    echo "the micro benchmarks do not run: see above"
fi
if [ "$binaries" = 0 ]; then
    failed=1
fi
echo
if [ "$skipped" != 0 ]; then
    echo "SKIPPED:"
    { grep -E '^SKIP' "$log"; grep -E '^test .* \.\.\. ignored' "$log"; } | sort | uniq -c
fi
echo "$binaries test programs, $skipped skipped, $flaky passed at the second try only"
if [ "${STRICT:-0}" = 1 ] && [ "$skipped" != 0 ]; then
    echo "STRICT: a skip is a failure"
    failed=$((failed + skipped))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

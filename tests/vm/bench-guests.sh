#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The benchmark suite of real guests works, and the guest answers rightly: one of python is
# recorded with one request and restored with another, with a hot section and without.
# Nothing is timed.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
requires qemu-system-x86_64 jq zstd bash
needs_userfaultfd
bench=$abs_top_srcdir/tests/bench

for script in "$bench"/suite "$bench"/suite-*.sh; do
    check "${script##*/} can be read" bash -n "$script"
done
"$bench/guest/build-workload" python >"$out" 2>"$err" || {
    skip "guests of the benchmark" "no guest: $(tail -n 1 "$err")"
    done_testing
    exit
}

t "the suite" 0 env BENCH_DIR="$tmp" BENCH_ROUNDS=1 BENCH_ONLY=python BENCH_STATES=cached \
    BENCH_PEERS=raw-mmap,raw-copy,gmem-lazy,gmem-hot BENCH_JSON="$tmp/json" "$bench/suite"
cp "$out" "$tmp/table"
samples() { # N FILTER: so many samples are like that
    [ "$(jq "[.samples[] | select($2)] | length" "$tmp/json")" -eq "$1" ]
}
check "has a sample of each peer" samples 4 '.answer_ms > 0'
check "each with the right answer" samples 4 '.right'
check "faults are counted" samples 2 '.stats.faults.stored != null'
check "with the hot section, pages were prefetched" samples 1 \
    '.peer == "gmem-hot" and .stats.pages.prefetched > 500'
check "and there are fewer faults" jq -e '[.samples[] | {key: .peer, value: .stats}] | from_entries |
    .["gmem-hot"].faults.stored * 4 < .["gmem-lazy"].faults.stored' "$tmp/json"
check "the table tells of all of them" grep -q 'gmem-hot ' "$tmp/table"
done_testing

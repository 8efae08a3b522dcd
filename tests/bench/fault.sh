#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What a demand fault costs (README).  BENCH_DIR: where images of 300 MiB are made;
# BENCH_ROUNDS: 7; BENCH_CPU: of the toucher and of who answers it, 0.
set -eu
dir=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/gmem-bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
rounds=${BENCH_ROUNDS:-7}
cpu=${BENCH_CPU:-0}
echo "load of this machine: $(cut -d ' ' -f 1-3 /proc/loadavg)"
gmem-bench-fault --make 1,8192 "$dir/1"
gmem-bench-fault --make 64,8192 "$dir/64"

say() {
    echo
    echo "== $1"
    shift
    gmem-bench-fault --rounds "$rounds" "$@"
}
say "on one CPU" "$dir/1" -- --placement "$cpu"
say "touched in a mix of orders" --order mix "$dir/1" -- --placement "$cpu"
say "the default, against bare servers that float" --place float "$dir/1"
say "two threads, and one" --threads 2 --scale "$dir/1" -- --placement same
say "64 GiB, sparse, and 1 GiB" --against "$dir/64" "$dir/1" -- --placement "$cpu"
say "4 busy neighbours, and none" --hogs 4 "$dir/1" -- --placement "$cpu" --sched fifo

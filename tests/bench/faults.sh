#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What a demand fault costs without a guest, by gmem-bench-fault: `make bench`, or make
# bench-faults alone.  Every line is a median of rounds, a ratio is of the same round.  A
# missed target is marked, not an error.
#
# BENCH_DIR (default /dev/shm) takes 200 MiB; BENCH_ROUNDS (default 5); BENCH_GIB (default 4)
# is the size of memory that is touched; BENCH_CPU (default 0) is where one thread touches, and is
# answered; BENCH_JSON=FILE gets a line of JSON for each cell.
set -eu
rounds=${BENCH_ROUNDS:-5}
cpu=${BENCH_CPU:-0}
tmp=$(mktemp -d -p "${BENCH_DIR:-/dev/shm}" gmem-bench-XXXXXX)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
[ -z "${BENCH_JSON:-}" ] || : >"$BENCH_JSON"

# cell NAME OPTION…: measures, into cell.json
cell()
{
	local name=$1
	shift
	gmem-bench-fault --json --rounds "$rounds" "$@" >cell.json
	[ -z "${BENCH_JSON:-}" ] || jq -c --arg n "$name" '{name: $n} + .' cell.json >>"$BENCH_JSON"
}

# row TEXT KEY UNIT [OPERATOR TARGET]
row()
{
	jq -r --arg text "$1" --arg key "$2" --arg unit "$3" --arg op "${4:-}" \
		--arg target "${5:-0}" '
		def left($n): . + " " * ([$n - length, 0] | max);
		.[$key] as $v | ($target | tonumber) as $t
		| if $v == null then empty else
		"\($text | left(52)) \($v * 100 | round / 100) \($unit)" + (if $op == "" then ""
		elif ($op == "<=" and $v <= $t) or ($op == ">=" and $v >= $t) then "  \($op) \($t)  ok"
		else "  \($op) \($t)  MISSED" end) end' cell.json
}

gmem-bench-fault --make "${BENCH_GIB:-4},4096" small.gmem
gmem-bench-fault --make 64,4096 large.gmem
echo "demand faults of 4 KiB, load $(cut -d' ' -f1 /proc/loadavg)"
for order in random sequential mix; do
	cell "$order" --order $order small.gmem -- --placement "$cpu"
	row "$order: p50" fault_p50 us
	row "  against pwrite + CONTINUE and the decoding" ratio_p50_floor_decode x '<=' 1.15
	row "  p99 against these" ratio_p99_floor_decode x '<=' 1.5
	row "  p50 against UFFDIO_COPY of a raw page" ratio_p50_copy x
done
for threads in 2 3 4; do
	cell "$threads threads" --threads $threads --scale small.gmem -- --placement same
	target=
	[ $threads -gt 2 ] || target='>= 1.6'
	# shellcheck disable=SC2086 # two words
	row "$threads threads, faults a second against one" ratio_rate_threads x $target
done
cell "64 GiB" --against large.gmem small.gmem -- --placement "$cpu"
row "64 GiB, p50 against ${BENCH_GIB:-4} GiB" ratio_p50_other x '<=' 1.1
cell "4 busy neighbours" --hogs 4 small.gmem -- --placement "$cpu" --sched fifo
row "4 busy neighbours, p99 against none" ratio_p99_other x '<=' 1.5

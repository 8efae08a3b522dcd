#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The benchmark suite: `make bench`.  Every ratio is of two things measured in
# this run, one after the other, several times; medians.  A missed target is
# marked, not an error: machines differ, and so does what else they do.
#
# BENCH_DIR (default /dev/shm) takes about 3 GiB while it runs; BENCH_MIB is the
# size of the memory that is snapshotted; BENCH_ROUNDS (default 5) tells how often all is
# measured; BENCH_JSON=FILE gets the numbers.
set -eu
rounds=${BENCH_ROUNDS:-5}
mib=${BENCH_MIB:-1024}
tmp=$(mktemp -d -p "${BENCH_DIR:-/dev/shm}" gmem-bench-XXXXXX)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
json=

# ms COMMAND…: how long it takes
ms()
{
	local began=$EPOCHREALTIME
	"$@" >/dev/null
	echo "$began $EPOCHREALTIME" | awk '{ printf "%.1f\n", ($2 - $1) * 1000 }'
}

median()
{
	sort -g "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

ratio()
{
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f\n", a / b }'
}

# row NAME VALUE UNIT [COMPARISON TARGET]
row()
{
	local verdict=
	if [ $# -ge 5 ]; then
		verdict=$(awk -v v="$2" -v op="$4" -v t="$5" 'BEGIN {
			good = op == ">=" ? v >= t : v <= t
			printf "%s %s %s", op, t, good ? "" : "  MISSED" }')
	fi
	printf '%-52s %10s %-4s  %s\n' "$1" "$2" "$3" "$verdict"
	json+="{\"name\":\"$1\",\"value\":$2,\"unit\":\"$3\"},"
}

value()
{
	awk -v n="$1" '$1 == n { print $2 }' "$2"
}

echo "$(uname -sr), $(nproc) CPUs, load $(cut -d' ' -f1 /proc/loadavg), libzstd $(zstd -V | grep -o 'v[0-9.]*')"

# ---- snapshot, and back ----
# snapshot PERCENT: of a file with that many pages that are not zero
snapshot()
{
	gmem-bench-corpus corpus.raw "$mib" "$1" >/dev/null
	rm -f ./*.ms
	for _ in $(seq "$rounds"); do
		ms zstd -q -f -T0 -1 corpus.raw -o corpus.zst >>zstd.ms
		ms gmem-snap -q --force --file corpus.raw -o corpus.gmem >>snap.ms
		gmem-bench scan corpus.raw 65536 | awk '{ print $2 }' >>scan.ms
	done
	row "snapshot of $mib MiB, $1 % not zero" "$(median snap.ms)" ms
	row "  zstd -T0 -1 takes, of it" "$(ratio "$(median zstd.ms)" "$(median snap.ms)")" x '>=' 1.8
	row "  a bare scan-and-compress loop takes, of it" \
		"$(ratio "$(median scan.ms)" "$(median snap.ms)")" x '>=' 0.85
	row "  size against zstd -1" \
		"$(ratio "$(stat -c %s corpus.gmem)" "$(stat -c %s corpus.zst)")" x '<=' 1.04
	for _ in $(seq "$rounds"); do
		ms zstd -q -f -d corpus.zst -o corpus.out >>unzstd.ms
		rm corpus.out
		gmem-restore -q --eager --stats stats.json corpus.gmem -- true '{mem}'
		jq '.times_ms.launched' stats.json >>eager.ms
	done
	row "eager restore of it, until the VMM starts" "$(median eager.ms)" ms
	row "  zstd -d takes, of it" "$(ratio "$(median unzstd.ms)" "$(median eager.ms)")" x '>=' 2
}

snapshot 12
snapshot 45

# ---- opening, and the first instruction ----
gmem-bench sparse 1.gmem 1
gmem-bench sparse 64.gmem 64
gmem-bench sparse 1024.gmem 1024
gmem-bench open 1.gmem 1024.gmem >open.txt
row "opening an image of 1 GiB" "$(value open_small open.txt)" us
row "  of 1 TiB against that" "$(value open_ratio open.txt)" x '<=' 1.5
for _ in $(seq "$rounds") $(seq "$rounds"); do
	for g in 1 64; do
		gmem-restore -q --no-background --stats stats.json $g.gmem -- gmem-bench touch '{mem}' one
		jq '.times_ms.first_fault - .times_ms.launched' stats.json >>$g.first
		jq '.times_ms.first_fault' stats.json >>$g.start
	done
done
row "start to first fault, 1 GiB" "$(median 1.start)" ms
row "  64 GiB against that" "$(ratio "$(median 64.start)" "$(median 1.start)")" x '<=' 1.3
row "launch to first fault, 1 GiB" "$(median 1.first)" ms
row "  64 GiB against that" "$(ratio "$(median 64.first)" "$(median 1.first)")" x '<=' 1.3

# ---- demand faults ----
gmem-bench fault corpus.gmem >fault.txt
row "demand fault, p50" "$(value fault_p50 fault.txt)" us
row "  bare pwrite + CONTINUE of a raw page" "$(value fault_floor_p50 fault.txt)" us
row "  reading and decoding the chunk up to it" "$(value fault_decode_p50 fault.txt)" us
row "  against the sum of these" "$(value fault_ratio fault.txt)" x '<=' 1.3
row "demand fault, p99" "$(value fault_p99 fault.txt)" us

# ---- eager restore ----
gmem-bench eager corpus.gmem >eager.txt
row "eager restore" "$(value eager eager.txt)" GB/s
row "  decode alone" "$(value eager_decode eager.txt)" GB/s
row "  install alone" "$(value eager_install eager.txt)" GB/s
row "  against 1/(1/decode + 1/install)" "$(value eager_ratio eager.txt)" x '>=' 0.9
# ---- memory ----
# gmem-restore and its page server.
# shellcheck disable=SC2016 # the inner shell expands these
gmem-restore -q corpus.gmem -- sh -c 'gmem-bench touch "$1" all
	for pid in $PPID $(cat /proc/$PPID/task/*/children); do
		! grep -q "^Name:.*gmem-" /proc/$pid/status || grep VmHWM /proc/$pid/status
	done' sh '{mem}' >hwm
row "memory of the server, peak" "$(awk '{ kib += $2 } END { printf "%.1f", kib / 1024 }' hwm)" MiB '<=' 64

# ---- filling memory, without gmem ----
gmem-bench-populate -j populate.json
json+=$(cat populate.json)

if [ -n "${BENCH_JSON:-}" ]; then
	echo "{\"schema\":1,\"results\":[${json%,}]}" | jq . >"$BENCH_JSON"
fi

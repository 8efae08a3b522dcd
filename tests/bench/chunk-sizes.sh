#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Measures what the default chunk size is chosen by, on a real guest: the stall
# of a lazy restore until its guest runs steadily, the size of the image, and
# the speed of an eager restore.  Rounds are interleaved, medians are printed.
#
#	tests/bench/chunk-sizes.sh [ROUNDS]		(inside ./run)
set -eu
rounds=${1:-5}
sizes='16K 32K 64K'
top=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d)
vm=
trap 'test -z "$vm" || kill -9 "$vm" 2>/dev/null; rm -rf "$tmp"' EXIT
cd "$tmp"

guest=$("$top/tests/guest/build-guest" 2>/dev/null)
mapfile -t args < <("$top/tests/guest/qemu-args" "$guest" 512 q35)
qemu=${QEMU:-qemu-system-x86_64}

"$qemu" -object memory-backend-memfd,id=ram0,size=512M,share=on "${args[@]}" \
	-serial file:boot.log -qmp unix:qmp,server=on,wait=off &
vm=$!
for _ in $(seq 600); do
	grep -q READY boot.log 2>/dev/null && break
	sleep 0.1
done
sleep 2
gmem-snap --qmp qmp -o vm.gmem -q
kill -9 "$vm"
wait "$vm" 2>/dev/null || true
vm=
gmem-inspect extract vm.gmem -o raw
gmem-inspect extract vm.gmem --state device -o state
for c in $sizes; do
	gmem-snap --file ram0=raw --state device=state --chunk-size "$c" -o "$c.gmem" -q
	gmem-inspect verify "$c.gmem" -q
done

# One lazy restore without background fill: 5 s of a guest that checks its memory.
restore()
{
	rm -f qmp2 pid
	gmem-restore -q --no-background --stats stats.json --qmp qmp2 "$1.gmem" -- \
		"$qemu" -object memory-backend-file,id=ram0,size=512M,share=on,mem-path='{mem}' \
		"${args[@]}" -serial null -qmp unix:qmp2,server=on,wait=off \
		-incoming defer -pidfile pid &
	vm=$!
	sleep 5
	kill "$(cat pid)"
	wait "$vm" || true
	vm=
	jq -r '[.faults.stored, .latency.sum_ns / 1e6, .latency.p50_ns / 1e3, .pages.demand + .pages.around,
		.times_ms.running] | @tsv' stats.json >>"$1.lazy"
	gmem-bench eager "$1.gmem" | awk '$1 == "eager" { print $2 }' >>"$1.eager"
}

for _ in $(seq "$rounds"); do
	for c in $sizes; do
		restore "$c"
	done
done

median()
{
	cut -f"$2" "$1" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

printf 'chunk\tfaults\tstall ms\tp50 us\tpages\trunning ms\timage bytes\teager GB/s\n'
for c in $sizes; do
	printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$c" "$(median "$c.lazy" 1)" "$(median "$c.lazy" 2)" \
		"$(median "$c.lazy" 3)" "$(median "$c.lazy" 4)" "$(median "$c.lazy" 5)" \
		"$(stat -c %s "$c.gmem")" "$(median "$c.eager" 1)"
done

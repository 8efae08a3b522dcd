#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Serving other VMMs, against the least that serves them: `make bench`, or make bench-vmms
# alone.  BENCH_DIR and BENCH_ROUNDS as in run.sh.  The VMMs are the tests' stand-ins: what
# is measured is the peer, not the VMM.
set -eu
rounds=${BENCH_ROUNDS:-5}
tmp=$(mktemp -d -p "${BENCH_DIR:-/dev/shm}" gmem-bench-XXXXXX)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

# ratios FILE A B: the median of the rounds' a/b, with both medians
ratios()
{
	awk -v what="$1" -v unit="$2" '{ print $1 / $2, $1, $2 }' "$3" | sort -g |
		awk -v what="$1" -v unit="$2" '{ line[NR] = $0 }
		END { split(line[int((NR + 1) / 2)], v, " ")
		      printf "%-44s %10.4g %-4s against %10.4g: %.2f\n", what, v[2], unit, v[3], v[1] }'
}

await()
{
	for _ in $(seq 400); do
		! "$@" || return 0
		sleep 0.01
	done
	echo "bench: $* took too long" >&2
	exit 1
}

# ---- Firecracker: 128 MiB, touched by one thread ----

touch_all() # SOCKET ORDER
{
	await test -S "$1"
	stand-in-firecracker --bench "$1" --mem-size 128 --order "$2" --threads 1
}

firecracker() # PERCENT ORDER
{
	local ours raw
	gmem-bench-corpus fc.raw 128 "$1" >/dev/null
	gmem-snap -q --force --file fc.raw -o fc.gmem
	rm -f fc.txt
	for _ in $(seq "$rounds"); do
		raw-uffd-server fc.raw raw.sock &
		raw=$(touch_all raw.sock "$2")
		wait $!
		gmem-restore -q fc.gmem --once --listen gmem.sock &
		ours=$(touch_all gmem.sock "$2")
		wait $!
		rm -f raw.sock gmem.sock
		echo "$ours $raw" >>fc.txt
	done
	ratios "Firecracker, $1 % not zero, $2" s fc.txt
}

echo "time to touch 128 MiB, served by gmem-restore, and by a raw file and UFFDIO_COPY"
for percent in 12 45 80; do
	firecracker $percent random
	firecracker $percent up
done

# ---- Cloud Hypervisor: pages asked for in order, one by one ----

vmm() # NAME OPTION...
{
	local name=$1
	shift
	stand-in-cloud-hypervisor --api-socket "path=$name.api" "$@"
}
ask() { stand-in-cloud-hypervisor --api-socket "$1.api" --request PUT "/api/v1/$2" ${3+"$3"}; }

raw_source()
{
	rm -f migration
	vmm raw --bench >raw.out 2>&1 &
	local pid=$!
	ask raw vm.receive-migration \
		"{\"receiver_url\":\"unix:$tmp/migration\",\"memory_mode\":\"Postcopy\"}" >asked &
	local request=$!
	await test -S migration
	raw-ch-source raw/memory raw/config.json raw/state.json migration
	wait $request $pid
}

per_second() { sed -n 's|.*: \([0-9]*\) requests/s$|\1|p' "$1"; }

cloud_hypervisor() # DENSITY
{
	vmm saved --memory size=256M,shared=on --density "$1" --stay 2>>log &
	local pid=$!
	mkdir -p raw
	rm -f migration
	await test -S saved.api
	gmem-snap -q --force --cloud-hypervisor saved.api -o ch.gmem 2>>log
	raw-ch-sink migration raw >/dev/null &
	local sink=$!
	await test -S migration
	ask saved vm.send-migration \
		"{\"destination_url\":\"unix:$tmp/migration\",\"local\":true}" >/dev/null
	wait $sink $pid
	rm -f ch.txt
	for _ in $(seq "$rounds"); do
		raw_source >>log 2>&1
		gmem-restore -q ch.gmem -- stand-in-cloud-hypervisor --api-socket path=gmem.api \
			--bench >gmem.out 2>&1
		echo "$(per_second gmem.out) $(per_second raw.out)" >>ch.txt
	done
	ratios "Cloud Hypervisor, 256 MiB, $1 of 32 not zero" /s ch.txt
}

echo
echo "pages a second, asked for in order, of gmem-restore and of a raw file"
for density in 4 20 32; do
	cloud_hypervisor $density
done

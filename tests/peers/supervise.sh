#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Page servers of VMMs that are driven die, again and again: Firecracker, whose memory is copied
# into and given back meanwhile, and Cloud Hypervisor, which asks for its pages in words.  Their
# guests look at every byte.
. "${abs_top_srcdir:?}/tests/lib/storm.sh"
requires stand-in-firecracker stand-in-cloud-hypervisor
needs_userfaultfd
api=$tmp/api image=$tmp/vm.gmem

# NAME TIMES RIGHT GMEM-OPTIONS COMMAND...: RIGHT is what the guest says.
storm() {
    name=$1 times=$2 right=$3 options=$4
    shift 4
    i=0 bad=0 before=$kills
    while [ $i -lt "$times" ]; do
        i=$((i + 1))
        rm -f "$api"
        # shellcheck disable=SC2086
        gmem-restore $options "$image" -- "$@" >"$tmp/out" 2>"$tmp/err" </dev/null &
        watch_over
        kill_servers
        finish
        [ "$status" -eq 0 ] && grep -q "$right" "$tmp/out" && continue
        bad=$((bad + 1))
        tail -n 3 "$tmp/out" "$tmp/err" | sed 's/^/# /'
    done
    check "$name: all is right ($((kills - before)) kills)" test $bad -eq 0
}

stand-in-firecracker --make --balloon-device --regions 3 --mem-size 64 "$tmp/mem" "$tmp/state" &&
    gmem-snap -q -f --file "memory=$tmp/mem" --state "vmstate=$tmp/state" -o "$image" || exit 99
fc() { # NAME TIMES OPTIONS OPTION...
    fc_name=$1 fc_times=$2 fc_options=$3
    shift 3
    storm "Firecracker, $fc_name" "$fc_times" '^guest: ok: ' "--vmm firecracker $fc_options" \
        stand-in-firecracker --api-sock "$api" "$@"
}
fc "filled behind" 3 ""
fc "on demand" 5 --no-background
fc "on demand, 8 threads, downwards" 4 --no-background --threads 8 --order down
fc "memory is given back" 5 --no-background --storm 5 --balloon while
fc "memory is given back, and filled behind" 4 "" --storm 5 --balloon while
fc "eager" 2 --eager --storm 3
fc "prefetched" 3 "--prefetch all" --storm 3

for memory in 32M,shared=on 32M; do
    rm -f "$api"
    stand-in-cloud-hypervisor --api-socket "$api" --memory size=$memory --slots 4 --gap 1M \
        --seed 3 >"$tmp/vmm.out" 2>&1 &
    vmm=$!
    await test -S "$api"
    gmem-snap -q -f --cloud-hypervisor "$api" --leave quit -o "$image" || exit 99
    wait $vmm
    for options in --no-background ""; do
        storm "Cloud Hypervisor, $memory $options" 3 'pages right' \
            "--vmm cloud-hypervisor $options" \
            stand-in-cloud-hypervisor --api-socket "$api" --fault-pipeline=8
    done
    storm "Cloud Hypervisor, $memory eager" 2 'pages right' "--vmm cloud-hypervisor --eager" \
        stand-in-cloud-hypervisor --api-socket "$api"
done
check "the page server was killed, often ($kills times)" test $kills -gt 30
check "nothing is left running" none_left
done_testing

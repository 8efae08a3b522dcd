#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Cloud Hypervisor itself, as it is released: its VM is saved while it runs and goes on from
# the image, and each page has what it had.  GMEM_CLOUD_HYPERVISOR="/path/to/cloud-hypervisor ..."
. "${abs_top_srcdir:?}/tests/lib/vmm-real.sh"
real_vmm "Cloud Hypervisor" GMEM_CLOUD_HYPERVISOR

cd "$tmp" || exit 99
TMPDIR=$tmp/tmp
export TMPDIR
mkdir tmp

boot() { # NAME MEMORY: $vm, which prints to serial, also where it is restored
    rm -f serial "$1.sock"
    "$ch" --kernel "$tiny_guest" --memory "$2" --cpus boot=1 --serial "file=$tmp/serial" \
        --console off --api-socket "$tmp/$1.sock" >"$1.log" 2>&1 &
    vm=$!
    await test -s serial
}
state() { call "$1.sock" GET /api/v1/vm.info | sed -n 's/.*"state":"\([^"]*\)".*/\1/p'; }
is() { [ "$(state "$1")" = "$2" ]; }

end() { # PID: by SIGTERM
    kill -TERM "$1"
    wait "$1" 2>/dev/null
}
restore() { # IMAGE NAME OPTION...: $restored
    from_image=$1 to=$2
    shift 2
    rm -f serial "$to.sock" stats
    gmem-restore "$from_image" --stats stats "$@" -- "$ch" --api-socket "$tmp/$to.sock" \
        >"$to.log" 2>"$to.err" &
    restored=$!
    await test -e serial
}
ended() { # NAME: ends the restored VM, which has an end of its own for SIGTERM
    end "$restored"
    check "$1: SIGTERM ends both" test $? -eq 0
    check "$1: nobody is left" none_restored
    check "$1: nothing is left" nothing_left "$tmp/tmp"
}
none_restored() { ! leftovers | grep -F b.sock; }
by_engine() {
    rm -f stats
    kill -USR1 "$restored"
    await grep -q "\"engine\": \"$1\"" stats
}
round() { # NAME ENGINE FROM IMAGE OPTION...
    name=$1 engine=$2 from=$3 image=$4
    shift 4
    restore "$image" b "$@"
    check "$name: every page has been looked at again" ticks_on serial 34
    check "$name: all as it was" right "$from" serial
    [ "$engine" = any ] || check "$name: by the engine $engine" by_engine "$engine"
    ended "$name"
}

for ch in $real_vmms; do
    echo "# $ch: $("$ch" --version 2>/dev/null | head -n 1)"
    rm -rf ./*.gmem p.raw p.state own*

    check "the guest starts" boot a size=64M,shared=on
    check "and works" ticks serial 3
    t "saved while it runs" 0 gmem-snap --cloud-hypervisor a.sock -o a.gmem
    check "runs on" is a Running
    check "nothing is left but the image" nothing_left "$tmp/tmp"
    check "and works on" ticks_on serial 3
    check "it has not noticed" right serial
    t "the image is whole" 0 gmem-inspect verify a.gmem
    t "info" 0 gmem-inspect info a.gmem
    for word in 'kind  *cloud-hypervisor' cloud-hypervisor-config cloud-hypervisor-state; do
        check "has $word" grep -q "$word" "$out"
    done

    t "left paused" 0 gmem-snap --cloud-hypervisor a.sock --leave paused -o p.gmem
    check "is paused" is a Paused
    cp serial a.paused
    mkdir own
    if call a.sock PUT /api/v1/vm.snapshot "{\"destination_url\":\"file://$tmp/own\"}" 2>why; then
        t "our memory" 0 gmem-inspect extract p.gmem -o p.raw
        check "is what Cloud Hypervisor itself saves" cmp p.raw own/memory-ranges
    else
        skip "what Cloud Hypervisor itself saves" "it can't save on this KVM: $(cat why)"
    fi
    rm -rf own
    t "a paused VM" 0 gmem-snap --cloud-hypervisor a.sock -o q.gmem
    check "stays so" is a Paused
    t "--leave quit" 0 gmem-snap --cloud-hypervisor a.sock --leave quit -o q.gmem --force
    check "ends it" await gone "$vm"
    wait "$vm" 2>/dev/null

    round "restored" source a.paused a.gmem
    round "restored, page by page" source a.paused p.gmem --no-background
    restore p.gmem b
    check "goes on where it was" await goes_on a.paused serial
    ended "goes on where it was"
    round "restored, eagerly" eager a.paused p.gmem --eager
    round "by the last image" source a.paused q.gmem

    # Paused, until somebody else lets it run.
    restore p.gmem b --paused
    check "--paused: is loaded" patiently is b Paused
    check "--paused: says nothing" test "$(grep -ac '^tick' serial)" -eq 0
    check "--paused: resumed" call b.sock PUT /api/v1/vm.resume
    check "--paused: works" ticks_on serial 34
    check "--paused: all as it was" right a.paused serial
    ended "--paused"

    # Saved again while it is restored.
    restore p.gmem b --no-background
    check "saved again: the first is there" ticks_on serial 1
    # Not before it has all its pages, which it asks for one by one, it says.
    check "saved again" patiently gmem-snap --cloud-hypervisor b.sock -o again.gmem
    check "saved again: the first goes on" ticks_on serial 34
    check "saved again: as it was" right a.paused serial
    mv serial first
    ended "saved again"
    round "the second image" source a.paused again.gmem
    check "the second image: later than the first" \
        test "$(first_tick serial)" -gt "$(first_tick first)"

    # Who serves it is killed: no zeros instead of what it had.
    restore p.gmem b --no-background
    kill -KILL "$restored"
    wait "$restored" 2>/dev/null
    check "killed: Cloud Hypervisor ends with it" await none_restored
    check "killed: and has not said a wrong word" right a.paused serial
    rm -rf tmp/*

    # Memory that is not shared goes through the stream.
    check "memory of its own: starts" boot a size=64M
    check "memory of its own: works" ticks serial 3
    t "memory of its own: saved" 0 gmem-snap --cloud-hypervisor a.sock -o own.gmem
    check "memory of its own: runs on" is a Running
    check "memory of its own: works on" ticks_on serial 3
    mv serial a.own
    end "$vm"
    round "memory of its own: restored" any a.own own.gmem
done
done_testing

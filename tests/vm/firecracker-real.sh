#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Firecracker itself, as it is released: its VM is saved while it runs and goes on from the
# image, and each page has what it had.  GMEM_FIRECRACKER="/path/to/firecracker ..."
. "${abs_top_srcdir:?}/tests/lib/vmm-real.sh"
real_vmm Firecracker GMEM_FIRECRACKER

cd "$tmp" || exit 99
TMPDIR=$tmp/tmp
export TMPDIR
mkdir tmp

# What the guest prints goes to NAME.out, and what Firecracker says elsewhere.
api_of() { echo "--api-sock $tmp/$1.sock --id $1 --level Warn --log-path $tmp/$1.log"; }
clear_of() {
    rm -f "$1.sock"
    : >"$1.log"
    : >"$1.out"
}

boot() { # NAME MIB [MACHINE]: $vm
    clear_of "$1"
    # shellcheck disable=SC2046
    "$fc" $(api_of "$1") >"$1.out" 2>"$1.err" &
    vm=$!
    await test -S "$1.sock" || return
    call "$1.sock" PUT /boot-source "{\"kernel_image_path\":\"$tiny_guest\",\"boot_args\":\"x\"}" &&
        call "$1.sock" PUT /machine-config "{\"vcpu_count\":1,\"mem_size_mib\":$2$3}" &&
        call "$1.sock" PUT /actions '{"action_type":"InstanceStart"}'
}
state() { call "$1.sock" GET / | sed -n 's/.*"state":"\([^"]*\)".*/\1/p'; }
is() { [ "$(state "$1")" = "$2" ]; }

# Firecracker's own snapshot: own$2.mem, own$2.state.  TYPE NUMBER
own() {
    call a.sock PATCH /vm '{"state":"Paused"}' && call a.sock PUT /snapshot/create \
        "{\"snapshot_type\":\"$1\",\"snapshot_path\":\"$tmp/own$2.state\",
          \"mem_file_path\":\"$tmp/own$2.mem\"}" &&
        call a.sock PATCH /vm '{"state":"Resumed"}'
}
# Starts one and has it load the state p.state with the memory that is served there: $vm
driven() { # NAME
    clear_of "$1"
    # shellcheck disable=SC2046
    "$fc" $(api_of "$1") >"$1.out" 2>"$1.err" &
    vm=$!
    await test -S "$1.sock" || return
    call "$1.sock" PUT /snapshot/load "{\"snapshot_path\":\"$tmp/p.state\",\"resume_vm\":true,
        \"mem_backend\":{\"backend_type\":\"Uffd\",\"backend_path\":\"$tmp/l.sock\"}}"
}

end() { # PID: by SIGTERM
    kill -TERM "$1"
    wait "$1" 2>/dev/null
}
restore() { # IMAGE NAME OPTION...: $restored
    from_image=$1 to=$2
    shift 2
    clear_of "$to"
    # shellcheck disable=SC2046
    gmem-restore "$from_image" --stats stats "$@" -- "$fc" $(api_of "$to") >"$to.out" 2>"$to.err" &
    restored=$!
}
ended() { # NAME: ends the restored VM
    end "$restored"
    check "$1: SIGTERM ends both" test $? -eq 143
    check "$1: nothing is left" nothing_left "$tmp/tmp"
}
round() { # NAME FROM IMAGE OPTION...
    name=$1 from=$2 image=$3
    shift 3
    restore "$image" b "$@"
    check "$name: every page has been looked at again" ticks_on b.out 34
    check "$name: all as it was" right "$from" b.out
    check "$name: by the engine copy" by_copy
    ended "$name"
}
# The statistics are written at the end, and on SIGUSR1.
by_copy() {
    rm -f stats
    kill -USR1 "$restored"
    await grep -q '"engine": "copy"' stats
}

for fc in $real_vmms; do
    echo "# $fc: $("$fc" --version 2>/dev/null | head -n 1)"
    rm -rf ./*.gmem p.raw p.state own*

    check "the guest starts" boot a 64
    check "and works" ticks a.out 3
    t "saved while it runs" 0 gmem-snap --firecracker a.sock -o a.gmem
    check "runs on" is a Running
    check "nothing is left but the image" nothing_left "$tmp/tmp"
    check "and works on" ticks_on a.out 3
    check "it has not noticed" right a.out
    t "the image is whole" 0 gmem-inspect verify a.gmem
    t "info" 0 gmem-inspect info a.gmem
    check "tells the VMM" grep -q 'kind  *firecracker' "$out"
    check "and the state" grep -q 'vmstate  *firecracker-vmstate' "$out"

    # What Firecracker writes itself is what we have.
    t "left paused" 0 gmem-snap --firecracker a.sock --leave paused -o p.gmem
    check "is paused" is a Paused
    cp a.out a.paused
    check "asked for Firecracker's own snapshot" call a.sock PUT /snapshot/create \
        "{\"snapshot_path\":\"$tmp/own.state\",\"mem_file_path\":\"$tmp/own.mem\"}"
    t "our memory" 0 gmem-inspect extract p.gmem -o p.raw
    check "is the same" cmp p.raw own.mem
    t "our state" 0 gmem-inspect extract p.gmem --state vmstate -o p.state
    check "has its size" test "$(wc -c <p.state)" -eq "$(wc -c <own.state)"
    t "a paused VM" 0 gmem-snap --firecracker a.sock -o q.gmem
    check "stays so" is a Paused
    t "--leave quit" 0 gmem-snap --firecracker a.sock --leave quit -o q.gmem --force
    check "ends it" await gone "$vm"
    wait "$vm" 2>/dev/null

    round "restored" a.out a.gmem
    round "restored, page by page" a.paused p.gmem --no-background
    check "goes on where it was" goes_on a.paused b.out
    round "restored, eagerly" a.paused p.gmem --eager
    round "by the last image" a.paused q.gmem

    # Paused, until somebody else lets it run.
    restore p.gmem b --paused
    check "--paused: is loaded" patiently is b Paused
    check "--paused: says nothing" test "$(grep -ac '^tick' b.out)" -eq 0
    check "--paused: resumed" call b.sock PATCH /vm '{"state":"Resumed"}'
    check "--paused: works" ticks_on b.out 34
    check "--paused: all as it was" right a.paused b.out
    ended "--paused"

    # Saved again while half of it has yet to arrive.
    restore p.gmem b --no-background
    check "saved again: the first is there" ticks_on b.out 1
    t "saved again" 0 gmem-snap --firecracker b.sock -o again.gmem
    check "saved again: the first goes on" ticks_on b.out 34
    check "saved again: as it was" right a.paused b.out
    cp b.out c.out
    ended "saved again"
    round "the second image" a.paused again.gmem
    check "the second image: later than the first" \
        test "$(first_tick b.out)" -gt "$(first_tick c.out)"

    # Who serves it is killed: no zeros instead of what it had.
    restore p.gmem b --no-background
    check "killed: works" ticks_on b.out 1
    kill -KILL "$restored"
    wait "$restored" 2>/dev/null
    check "killed: Firecracker ends with it" await none_left
    check "killed: and has not said a wrong word" right a.paused b.out
    rm -rf tmp/*

    # Somebody else drives Firecracker; two of them share the image.
    rm -f l.sock
    gmem-restore p.gmem --listen "$tmp/l.sock" >listen.log 2>&1 &
    server=$!
    check "--listen: is there" await test -S l.sock
    check "--listen: one VM" driven b
    first=$vm
    check "--listen: another" driven c
    for n in b c; do
        check "--listen: $n works" ticks_on $n.out 34
        check "--listen: $n is as it was" right a.paused $n.out
    done
    end "$first"
    check "--listen: the other does not mind" ticks_on c.out 3
    end "$vm"
    end "$server"
    check "--listen: nobody is left" await none_left
    gmem-restore p.gmem --listen "$tmp/l.sock" --once --no-background >listen.log 2>&1 &
    server=$!
    await test -S l.sock
    check "--once: one VM" driven b
    check "--once: works" ticks_on b.out 34
    check "--once: as it was" right a.paused b.out
    end "$vm"
    wait "$server"
    check "--once: ends with it" test $? -eq 0

    # Diff snapshots are laid over the memory that Firecracker has written first.
    check "diff: the guest starts" boot a 64 ',"track_dirty_pages":true'
    check "diff: works" ticks a.out 3
    check "diff: the first" own Full 0
    check "diff: works on" ticks_on a.out 3
    check "diff: the second" own Diff 1
    check "diff: works on" ticks_on a.out 3
    check "diff: the third" own Diff 2
    cp a.out a.diff
    t "diff: an image" 0 gmem-snap --file memory=own0.mem --diff own1.mem --diff own2.mem \
        --state vmstate=own2.state -o diff.gmem
    end "$vm"
    restore diff.gmem b --vmm firecracker
    check "diff: restored" ticks_on b.out 34
    check "diff: as it was" right a.diff b.out
    ended "diff"

    # Firecracker has ended without a word, or refuses.
    restore p.gmem b
    ticks_on b.out 1
    # shellcheck disable=SC2046
    kill -KILL $(leftovers | awk '/--id b/ && !/gmem-restore/ { print $1 }')
    wait "$restored" 2>/dev/null
    check "Firecracker is killed: so is the status" test $? -eq 137
    check "and nothing is left" nothing_left "$tmp/tmp"
    printf 'XXXX' | dd of=p.state bs=1 seek=2000 conv=notrunc 2>/dev/null
    t "a broken state: an image of it" 0 gmem-snap --file memory=own.mem --state vmstate=p.state \
        -o broken.gmem
    clear_of b
    # shellcheck disable=SC2046
    t "a broken state: is refused" 1 timeout -k 5 "$patience" gmem-restore broken.gmem \
        --vmm firecracker -- "$fc" $(api_of b)
    check "a broken state: nobody is left" await none_left
    check "and nothing" nothing_left "$tmp/tmp"
done
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A real guest: Linux in QEMU, saved under load, killed, and restored lazily.
# The guest itself says whether its memory is right, and counts on.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
requires qemu-system-x86_64
needs_userfaultfd
guest=$("$abs_top_srcdir/tests/guest/build-guest" 2>"$tmp/build") ||
    skip_all "no guest: $(tail -n 1 "$tmp/build")"

mib=160
shm=/dev/shm/gmem-test-$$
vm_clean() {
    rm -f "$shm"
    vmm_clean
}
trap vm_clean EXIT

# From 8.1 on QEMU leaves only files out of its state.
case $(qemu-system-x86_64 --version | sed -n 's/.* version \([0-9]*\.[0-9]*\).*/\1/p') in
    [4-7].* | 8.0) ram=memory-backend-memfd ;;
    *) ram=memory-backend-file,mem-path=$shm ;;
esac

# Puts into "$@" of the caller, by eval, what both machines have in common.
arguments() { # MACHINE
    "$abs_top_srcdir/tests/guest/qemu-args" "$guest" $mib "$1" \
        gmem.load=1 gmem.data=24 gmem.hash=md5 >"$tmp/args" || exit 99
    sed "s/'/'\\\\''/g; s/.*/'&'/" "$tmp/args" | tr '\n' ' '
}
boot() { # MACHINE: $qemu
    eval "set -- $(arguments "$1")"
    rm -f "$tmp/q1" "$tmp/s1"
    qemu-system-x86_64 -object "$ram,id=ram0,size=${mib}M,share=on" "$@" \
        -serial "file:$tmp/s1" -qmp "unix:$tmp/q1,server=on,wait=off" 2>"$tmp/qemu-err" &
    qemu=$!
}
restore() { # MACHINE IMAGE SERIAL OPTION...: $restore
    machine=$1 from=$2 serial=$3
    shift 3
    restore_options=$*
    eval "set -- $(arguments "$machine")"
    rm -f "$tmp/q2" "$serial"
    # shellcheck disable=SC2086
    gmem-restore $restore_options --stats "$tmp/stats" --qmp "$tmp/q2" "$from" -- \
        qemu-system-x86_64 \
        -object "memory-backend-file,id=ram0,size=${mib}M,share=on,mem-path={mem}" "$@" \
        -serial "file:$serial" -qmp "unix:$tmp/q2,server=on,wait=off" -incoming defer \
        >"$tmp/restore-out" 2>&1 &
    restore=$!
}
counters() { # SERIAL
    sed -n 's/.*GUEST counter=\([0-9]*\).*/\1/p' "$1"
}
first_counter() { counters "$1" | head -n 1; }
last_counter() { counters "$1" | tail -n 1; }
counts() { [ -n "$(last_counter "$1")" ]; }
goes_on() { # SERIAL: three more
    await_last=$(last_counter "$1")
    patiently reached "$1" $((${await_last:-0} + 3))
}
reached() { [ "$(last_counter "$1")" -ge "$2" ]; }
sums() { # SERIAL N: so many checksums of the guest, all of them right
    [ "$(grep -c 'sum=[0-9a-f]* ok' "$1")" -ge "$2" ]
}
patiently() { # await, for what takes a guest
    for _ in 1 2 3; do
        await "$@" && return 0
    done
    return 1
}
all_right() { # SERIAL N
    if patiently sums "$1" "$2" && ! grep -n BAD "$1"; then
        return 0
    fi
    tail -n 3 "$1" "$tmp/restore-out"
    return 1
}
between() { # LOW N HIGH
    echo "$1 <= $2 <= $3?"
    [ "$1" -le "$2" ] && [ "$2" -le "$3" ]
}
end_vm() { # SERIAL: and it has a normal end
    kill -TERM "$restore"
    wait "$restore"
}

whole_way() { # MACHINE
    boot "$1"
    check "$1: a guest boots" patiently grep -q 'GUEST READY' "$tmp/s1"
    check "$1: it runs" patiently sums "$tmp/s1" 1
    low=$(last_counter "$tmp/s1")
    t "$1: snapshot under load" 0 gmem-snap --qmp "$tmp/q1" -o "$tmp/$1.gmem"
    [ -e "$tmp/$1.gmem" ] || return
    high=$(last_counter "$tmp/s1")
    check "$1: it goes on" goes_on "$tmp/s1"
    kill -KILL "$qemu"
    wait "$qemu" 2>/dev/null
    restore "$1" "$tmp/$1.gmem" "$tmp/s2"
    check "$1: restored, it runs" patiently counts "$tmp/s2"
    check "$1: its counter goes on from the snapshot" \
        between "$low" "$(first_counter "$tmp/s2")" $((high + 2))
    check "$1: its memory is right" all_right "$tmp/s2" 2
    end_vm
    check "$1: QEMU ends by SIGTERM as it always does" test $? -eq 0
}

whole_way q35
q35=$tmp/q35.gmem
check "faults were served" grep -Eq '"stored": [1-9]' "$tmp/stats"

# A guest that is not all there cannot be saved; it runs on.
restore q35 "$q35" "$tmp/s3" --no-background
patiently counts "$tmp/s3"
t "a snapshot of a guest that is not all there" 5 gmem-snap --qmp "$tmp/q2" -o "$tmp/early.gmem"
check "is refused with a reason" grep -q 'restore' "$err"
check "and leaves nothing" test ! -e "$tmp/early.gmem"
check "the guest goes on" goes_on "$tmp/s3"
check "its memory is right without background" all_right "$tmp/s3" 1
end_vm

# When it is complete it is a guest like any other.
restore q35 "$q35" "$tmp/s4" -v
check "a restore is complete" patiently grep -q 'all memory is there' "$tmp/restore-out"
patiently counts "$tmp/s4"
t "a snapshot of a restored guest" 0 gmem-snap --qmp "$tmp/q2" -o "$tmp/second.gmem"
check "the guest goes on" goes_on "$tmp/s4"
end_vm
restore q35 "$tmp/second.gmem" "$tmp/s5" --eager
check "the second image, restored eagerly, is right" all_right "$tmp/s5" 1
end_vm

# kill -9
seed=$(($(date +%s) % 30000))
echo "# random numbers begin at $seed"
nap() { # MS: up to
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    sleep "$(printf '%d.%03d' $((seed / 8 % $1 / 1000)) $((seed / 8 % $1 % 1000)))"
}
left=0 wrong=0
for _ in 1 2 3 4 5 6; do
    restore q35 "$q35" "$tmp/s6"
    nap 1500
    kill -KILL "$restore"
    wait "$restore" 2>/dev/null
    await none_left || left=$((left + 1))
    ! grep -q BAD "$tmp/s6" 2>/dev/null || wrong=$((wrong + 1))
done
check "kill -9 of gmem-restore: no QEMU is left" test $left -eq 0
check "and no guest has seen wrong memory" test $wrong -eq 0
bad=0
for _ in 1 2 3; do
    restore q35 "$q35" "$tmp/s7"
    await test -S "$tmp/q2"
    nap 800
    pid=$(cat "/proc/$restore/task/$restore/children")
    # shellcheck disable=SC2086
    kill -KILL $pid
    wait "$restore" 2>/dev/null
    status=$?
    [ $status -eq 137 ] || {
        bad=$((bad + 1))
        echo "# process '$pid', status $status:"
        sed 's/^/# /' "$tmp/restore-out"
    }
done
check "kill -9 of QEMU: gmem-restore ends as it did" test $bad -eq 0

restore q35 "$q35" "$tmp/s8" -v
patiently grep -q 'all memory is there' "$tmp/restore-out"
patiently counts "$tmp/s8"
bad=0
for _ in 1 2 3 4; do
    rm -f "$tmp/killed.gmem"
    gmem-snap --qmp "$tmp/q2" --level 9 --threads 1 -o "$tmp/killed.gmem" 2>"$tmp/snap-err" &
    snap=$!
    nap 400
    kill -KILL $snap
    wait $snap 2>/dev/null
    [ ! -e "$tmp/killed.gmem" ] || gmem-inspect verify "$tmp/killed.gmem" || bad=$((bad + 1))
    goes_on "$tmp/s8" || bad=$((bad + 10))
done
check "kill -9 of gmem-snap: the guest goes on, no image is half done" test $bad -eq 0
t "the next snapshot works" 0 gmem-snap --qmp "$tmp/q2" -f -o "$tmp/killed.gmem"
check "the guest's memory is right" all_right "$tmp/s8" 1
end_vm

whole_way pc
whole_way microvm
check "nothing is left running" none_left
done_testing

# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The Linux guest of tests/guest in QEMU, for who saves and restores it; sources
# vmm-cli.sh.  Sets $guest, or skips all.
#
#   boot MACHINE ARG...      $qemu, monitor $tmp/q1, serial line $tmp/s1
#   restore MACHINE IMAGE SERIAL "OPTION..." ARG...   $restore, monitor $tmp/q2
#
# ARG... are the guest's memory, of $mib MiB; none: an object ram0 of $ram.

. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd
# shellcheck disable=SC2154
guest=$("$abs_top_srcdir/tests/guest/build-guest" 2>"$tmp/build") ||
    skip_all "no guest: $(tail -n 1 "$tmp/build")"

mib=160
shm=/dev/shm/gmem-test-$$
vm_clean() {
    rm -f "$shm" "$shm".*
    vmm_clean
}
trap vm_clean EXIT

# Puts into "$@" of the caller, by eval, what both machines have in common.
arguments() { # MACHINE OBJECT: of memory, or none
    "$abs_top_srcdir/tests/guest/qemu-args" "$guest" $mib "$1" \
        gmem.load=1 gmem.data=24 gmem.hash=md5 >"$tmp/args" || exit 99
    sed -i "s/,memory-backend=ram0/${2:+,memory-backend=$2}/" "$tmp/args"
    sed "s/'/'\\\\''/g; s/.*/'&'/" "$tmp/args" | tr '\n' ' '
}
# $object is what -machine memory-backend names; none: the objects are nodes, or there is none.
object=ram0
boot() {
    boot_machine=$1
    shift
    # shellcheck disable=SC2154
    [ $# -gt 0 ] || set -- -object "$ram,id=ram0,size=${mib}M,share=on"
    eval "set -- \"\$@\" $(arguments "$boot_machine" "$object")"
    rm -f "$tmp/q1" "$tmp/s1"
    qemu-system-x86_64 "$@" \
        -serial "file:$tmp/s1" -qmp "unix:$tmp/q1,server=on,wait=off" 2>"$tmp/qemu-err" &
    # shellcheck disable=SC2034
    qemu=$!
}
restore() {
    restore_machine=$1 restore_image=$2 restore_serial=$3 restore_options=$4
    shift 4
    [ $# -gt 0 ] ||
        set -- -object "memory-backend-file,id=ram0,size=${mib}M,share=on,mem-path={mem}"
    eval "set -- \"\$@\" $(arguments "$restore_machine" "$object")"
    rm -f "$tmp/q2" "$restore_serial"
    # shellcheck disable=SC2086
    gmem-restore $restore_options --stats "$tmp/stats" --qmp "$tmp/q2" "$restore_image" -- \
        qemu-system-x86_64 "$@" \
        -serial "file:$restore_serial" -qmp "unix:$tmp/q2,server=on,wait=off" \
        -incoming defer >"$tmp/restore-out" 2>&1 &
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
# From boot to restored: MACHINE OPTION...; the image is $tmp/MACHINE.gmem.
whole_way() {
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
    restore "$1" "$tmp/$1.gmem" "$tmp/s2" "${2:-}"
    check "$1: restored, it runs" patiently counts "$tmp/s2"
    check "$1: its counter goes on from the snapshot" \
        between "$low" "$(first_counter "$tmp/s2")" $((high + 2))
    check "$1: its memory is right" all_right "$tmp/s2" 2
    end_vm
    check "$1: QEMU ends by SIGTERM as it always does" test $? -eq 0
}

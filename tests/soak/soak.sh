#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC1010,SC2013,SC2034,SC2086
# Snapshots, restores, kills, stops and damage in random order, on guests that compare every
# byte.  SOAK_SECONDS (30; make soak: 300) long; SOAK_SEED repeats the same choices, and
# SOAK_STEPS=N ends after N of them.  What goes wrong is kept in SOAK_KEEP (soak-failed in the
# current folder), with the command that repeats it.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd
seconds=${SOAK_SECONDS:-30} steps=${SOAK_STEPS:-1000000000}
first=${SOAK_SEED:-$(($(date +%s) % 1000000))}
seed=$first
keep=${SOAK_KEEP:-$PWD/soak-failed}
patience=${GMEM_TEST_PATIENCE:-60}
echo "# SOAK_SEED=$first SOAK_SECONDS=$seconds"

random() { # N: 0 to N - 1, into $r
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    r=$((seed / 8 % $1))
}
one_of() { # WORD...: into $w
    random $#
    shift "$r"
    w=$1
}
nap() { # up to N ms
    random "$1"
    sleep "$((r / 1000)).$(printf %03d $((r % 1000)))"
}
now_s() { cut -d . -f 1 /proc/uptime; }

step=0 violations=0
restores=0 snapshots=0 refused=0 kib=0 faults=0 damaged=0 detected=0 stops=0
killed_restore=0 killed_server=0 killed_vmm=0 killed_snap=0 killed_qemu=0
wrong_bytes=0 hangs=0

# Everything there is of this step; at most ten are kept.
violation() { # WHAT
    violations=$((violations + 1))
    echo "# step $step ($what): $*"
    [ $violations -le 10 ] || return 0
    mkdir -p "$keep/$step"
    echo "step $step ($what): $*
again: make soak SOAK_SEED=$first SOAK_STEPS=$step" | tee -a "$keep/$step/why" | sed -n '$s/^/# /p'
    cp "$tmp/says" "$tmp/err" "$tmp/out" "$tmp/stats" "$tmp/image" "$keep/$step/" 2>/dev/null
}
looks_wrong() { # what the VMM has said
    if grep -q MISMATCH "$tmp/says"; then
        wrong_bytes=$((wrong_bytes + 1))
        violation "a wrong byte: $(grep -m 1 MISMATCH "$tmp/says")"
    fi
}
# Waits for $restore; its status is $status, or "hang".
finish() {
    finish_until=$(($(now_s) + patience))
    until gone "$restore" 2>/dev/null; do
        if [ "$(now_s)" -gt $finish_until ]; then
            status=hang
            hangs=$((hangs + 1))
            violation "a hang: $(grep -h . "/proc/$restore/task/"*/wchan 2>/dev/null | tr '\n' ' ')"
            kill -KILL "$restore"
            wait "$restore" 2>/dev/null
            return
        fi
        sleep 0.02
    done
    wait "$restore" 2>/dev/null
    status=$?
}
# But for those that stay until the end.
strays() { leftovers | awk -v a="$held" -v b="${vm:-0}" '$1 != a && $1 != b'; }
no_strays() { [ -z "$(strays)" ]; }
nobody_left() {
    await no_strays || {
        violation "left: $(strays)"
        # shellcheck disable=SC2046
        kill -KILL $(strays | awk '{ print $1 }') 2>/dev/null
    }
}
count_faults() {
    [ -s "$tmp/stats" ] || return 0
    n=$(sed -n '/^  "faults": {/,/}/ { s/[^0-9]//g; /./p; }' "$tmp/stats" | awk '{ n += $1 } END { print n + 0 }')
    faults=$((faults + n))
}
# Children of gmem-restore that are page servers, if they are processes of their own.
page_servers() {
    for p in $(cat "/proc/$restore/task/"*/children 2>/dev/null); do
        case $(cat "/proc/$p/comm" 2>/dev/null) in gmem-page-serv*) echo "$p" ;; esac
    done
}

# ---- what is restored ----
mib=16
vmm-image "$tmp/plain.gmem" 16384 ram=memfd,$mib,20,2 || exit 99
vmm-image "$tmp/small.gmem" 4096 ram=memfd,$mib,20,2 || exit 99
vmm-image "$tmp/large.gmem" 2097152 ram=memfd,$mib,20,2 || exit 99
vmm-image "$tmp/hot.gmem" 65536 hot=3 ram=memfd,$mib,20,2 || exit 99
pool="plain small large hot"

choose_image() {
    # shellcheck disable=SC2086
    one_of $pool
    image=$tmp/$w.gmem
    echo "$w" >"$tmp/image"
}
choose_options() {
    one_of "" "" --no-background "--background idle" "--background rate=20M" --eager
    options=$w
    one_of "" "--threads 1" "--threads 3"
    options="$options $w"
    one_of "" "" "--placement same"
    options="$options $w"
    case $options in *--eager*) ;; *)
        one_of "" "" "--prefetch all"
        options="$options $w"
        ;;
    esac
}
choose_guest() { # words, and how many KiB they compare, if they come to their end
    one_of served served served own
    if [ $w = own ]; then
        guest="own=memfd,$mib pattern=2,20 map"
        options="$options --vmm handoff"
    else
        guest="open={mem} pattern=2,20 map"
    fi
    one_of touch=4 touch=2,twice write=2 write=4 race=remove,5,3 syscalls unmap
    case $w in
    touch=4) guest="$guest touch=4" compares=4 ;;
    touch=2,twice) guest="$guest touch=2 touch=2" compares=4 ;;
    write=*) guest="$guest $w verify" compares=1 ;;
    race=*) guest="$guest $w verify" compares=4 ;;
    syscalls) guest="$guest syscalls verify" compares=2 ;;
    unmap) guest="$guest touch=1 unmap map touch=1" compares=2 ;;
    esac
    compares=$((compares * mib * 1024))
}
launch() { # WORD...: in the background
    rm -f "$tmp/pid" "$tmp/says" "$tmp/stats"
    # shellcheck disable=SC2086
    gmem-restore $options --stats "$tmp/stats" "$image" -- vmm-touch "pid=$tmp/pid" $guest \
        "$@" >"$tmp/says" 2>&1 &
    restore=$!
}
# A restore that nobody disturbs for good has to come to its end.
expect_end() {
    finish
    [ "$status" != hang ] || return 0
    looks_wrong
    if [ "$status" -ne 0 ] || ! grep -qx done "$tmp/says"; then
        violation "status $status: gmem-restore $options $image -- $guest: $(tail -n 2 "$tmp/says")"
    else
        kib=$((kib + compares))
    fi
    count_faults
}

# ---- steps ----
disturb() { # TIMES MS COMMAND: a restore that often at most, after naps of so long at most
    launch say=done
    random "$1"
    n=$r
    while [ "$n" -gt 0 ]; do
        n=$((n - 1))
        nap "$2"
        "$3"
    done
    expect_end
}
stop_one() { # for a while
    # shellcheck disable=SC2046
    one_of "$restore" "$(cat "$tmp/pid" 2>/dev/null)" $(page_servers)
    [ -n "$w" ] || return
    kill -STOP "$w" 2>/dev/null || return
    stops=$((stops + 1))
    nap 40
    kill -CONT "$w" 2>/dev/null
}
kill_servers() {
    for p in $(page_servers); do
        kill -KILL "$p" 2>/dev/null && killed_server=$((killed_server + 1))
    done
}
restore_and_stop() { disturb 6 30 stop_one; }
# Many at once are too many on purpose, and stop the VM.
kill_the_server() { disturb 8 40 kill_servers; }
kill_gmem_restore() {
    launch forever
    nap 150
    kill -KILL "$restore" 2>/dev/null && killed_restore=$((killed_restore + 1))
    finish
    looks_wrong
}
kill_the_vmm() {
    launch forever
    await test -s "$tmp/pid"
    nap 100
    kill -KILL "$(cat "$tmp/pid")" 2>/dev/null && killed_vmm=$((killed_vmm + 1))
    finish
    looks_wrong
    [ "$status" = 137 ] || [ "$status" = hang ] || violation "status $status, not 137"
}
damage_the_image() {
    cp "$image" "$tmp/damaged"
    size=$(stat -c %s "$image")
    one_of flip flip flip cut
    if [ "$w" = cut ]; then
        random "$size"
        truncate -s "$r" "$tmp/damaged"
    else
        # seed has 28 bits: enough for these images
        random "$size"
        at=$r
        byte=$(od -An -tu1 -j "$at" -N 1 "$image")
        random 8
        # shellcheck disable=SC2059
        printf "\\$(printf %o $((byte ^ (1 << r))))" |
            dd of="$tmp/damaged" bs=1 seek="$at" conv=notrunc 2>"$tmp/out"
    fi
    image=$tmp/damaged
    damaged=$((damaged + 1))
    launch say=done
    finish
    [ "$status" != hang ] || return 0
    looks_wrong
    count_faults
    if [ "$status" -eq 0 ]; then
        # What it needed was not hit.
        kib=$((kib + compares))
        return
    fi
    detected=$((detected + 1))
    # By the message, or a poisoned page.
    [ -s "$tmp/says" ] || [ "$status" -eq 135 ] || violation "status $status without a message"
}

# A process that counts, for gmem-snap.
mkfifo "$tmp/ready"
hold-memory -c "$tmp=1" "ram=3:$tmp/ram" >"$tmp/ready" 2>"$err" &
held=$!
read -r answer <"$tmp/ready"
runs() { # PID
    read -r line <"/proc/$1/stat" || return 1
    case ${line##*) } in [TtZX]*) return 1 ;; esac
}
is_of_one_moment() { # IMAGE
    gmem-inspect extract "$1" --region counter -o "$tmp/counter" --force >"$tmp/out" 2>&1 || return 1
    a=$(od -An -tu8 -N8 "$tmp/counter")
    b=$(od -An -tu8 -j4096 -N8 "$tmp/counter")
    [ "$a" -gt 0 ] && [ $((a - b)) -ge 0 ] && [ $((a - b)) -le 1 ] &&
        gmem-inspect extract "$1" --region ram -o "$tmp/got" --force >"$tmp/out" 2>&1 &&
        cmp -s "$tmp/got" "$tmp/ram" && kib=$((kib + 3072))
}
judge_snapshot() { # STATUS
    case $1 in
    0)
        snapshots=$((snapshots + 1))
        is_of_one_moment "$tmp/snap" || violation "a wrong image"
        ;;
    137) [ ! -e "$tmp/snap" ] || is_of_one_moment "$tmp/snap" || violation "half an image" ;;
    1 | 5)
        refused=$((refused + 1))
        [ ! -e "$tmp/snap" ] || violation "an image in spite of status $1"
        ;;
    *) violation "status $1 of gmem-snap" ;;
    esac
    await runs $held || {
        violation "the VM does not run"
        kill -CONT $held
    }
    left=$(find "$tmp" -maxdepth 1 -name '.snap.*')
    [ -z "$left" ] || violation "left: $left"
}
snap_a_process() {
    rm -f "$tmp/snap"
    one_of stop auto
    how=$w
    random 9
    one_of 4K 64K 2M
    gmem-snap -q --pid $held --pause $how --level $((r + 1)) --chunk-size "$w" -o "$tmp/snap" \
        2>"$err" &
    snap=$!
    if [ "$1" = kill ]; then
        nap 60
        kill -KILL $snap 2>/dev/null && killed_snap=$((killed_snap + 1))
    fi
    wait $snap 2>/dev/null
    judge_snapshot $?
}
# What a guest has been restored to is what it was, or is told not to be all there yet.
snap_a_restored_vm() {
    rm -f "$tmp/snap"
    guest="open={mem} pattern=2,20 map touch=2"
    launch say=done forever
    await test -s "$tmp/pid"
    nap 200
    gmem-snap -q --pid "$(cat "$tmp/pid")" --pause stop -o "$tmp/snap" 2>"$err"
    status=$?
    if [ $status -eq 0 ]; then
        snapshots=$((snapshots + 1))
        options='' image=$tmp/snap
        kill -KILL "$restore"
        finish
        looks_wrong
        launch say=done
        compares=$((2 * mib * 1024))
        expect_end
    else
        refused=$((refused + 1))
        [ $status -eq 5 ] || [ $status -eq 1 ] || violation "status $status of gmem-snap"
        [ ! -e "$tmp/snap" ] || violation "an image in spite of status $status"
        kill -KILL "$restore"
        finish
        looks_wrong
    fi
}

# ---- minivmm, with a real guest ----
kvm=no
if [ -w /dev/kvm ] && minivmm --memory memfd --size 4 --rounds 1 >"$out" 2>&1; then
    kvm=yes
    work="--size 6 --rounds 30 --writes 60 --free 5"
    # shellcheck disable=SC2086
    minivmm --memory memfd $work >"$tmp/full" 2>"$err" || exit 99
fi
snap_minivmm() {
    rm -f "$tmp/control" "$tmp/mini.gmem"
    # shellcheck disable=SC2086
    minivmm --memory memfd $work --delay 20 --control "$tmp/control" >"$tmp/half" 2>"$tmp/says" &
    mini=$!
    await test -S "$tmp/control"
    nap 300
    one_of "" --pause-less
    # shellcheck disable=SC2086
    timeout -k 5 "$patience" gmem-snap -q --handoff "$tmp/control" $w -o "$tmp/mini.gmem" 2>"$err"
    status=$?
    kill -KILL $mini 2>/dev/null && killed_vmm=$((killed_vmm + 1))
    wait $mini 2>/dev/null
    if [ $status -ne 0 ]; then
        # It may have come to its end before.
        [ "$(tail -n 1 "$tmp/half")" = "$(tail -n 1 "$tmp/full")" ] ||
            violation "gmem-snap --handoff: status $status: $(cat "$err")"
        return
    fi
    snapshots=$((snapshots + 1))
    image=$tmp/mini.gmem guest='' compares=6144
    one_of "" --no-background --eager
    rm -f "$tmp/stats"
    # shellcheck disable=SC2086
    gmem-restore $w --stats "$tmp/stats" "$image" -- minivmm --memory memfd \
        --restore '{state}' >"$tmp/rest" 2>"$tmp/says" &
    restore=$!
    random 3
    if [ "$r" -eq 0 ]; then
        nap 100
        kill_servers
    fi
    finish
    [ "$status" != hang ] || return 0
    if [ "$status" -ne 0 ] || [ "$(tail -n 1 "$tmp/rest")" != "$(tail -n 1 "$tmp/full")" ]; then
        violation "minivmm goes on otherwise: status $status: $(tail -n 1 "$tmp/says")"
    fi
    kib=$((kib + compares))
    count_faults
}

# ---- QEMU: its firmware under TCG ----
qemu=no
if command -v qemu-system-x86_64 >/dev/null && command -v jq >/dev/null; then
    qemu-system-x86_64 -machine q35,accel=tcg,memory-backend=ram0 -m 32 -display none -net none \
        -object memory-backend-memfd,id=ram0,size=32M,share=on -nodefaults \
        -qmp "unix:$tmp/qmp,server=on,wait=off" >"$tmp/qemu.log" 2>&1 &
    vm=$!
    ! await test -S "$tmp/qmp" || qemu=yes
fi
snap_qemu() {
    rm -f "$tmp/qemu.gmem"
    gmem-snap -q --qmp "$tmp/qmp" -o "$tmp/qemu.gmem" 2>"$err" &
    snap=$!
    nap 600
    kill -KILL $snap 2>/dev/null && killed_qemu=$((killed_qemu + 1))
    wait $snap 2>/dev/null
    # Its memory, its state, and that it is not paused: asked by the next one.
    rm -f "$tmp/qemu.gmem"
    timeout -k 5 60 gmem-snap --json --qmp "$tmp/qmp" -o "$tmp/qemu.gmem" >"$out" 2>"$err" ||
        violation "QEMU can't be saved after a kill: $(cat "$err")"
    snapshots=$((snapshots + 1))
    grep -q '"vm": "running"' "$out" || violation "QEMU stays paused: $(grep '"vm"' "$out")"
    gmem-inspect verify -q "$tmp/qemu.gmem" || violation "the image is damaged"
}
soak_clean() {
    kill -KILL $held ${vm:+$vm} 2>/dev/null
    vmm_clean
}
trap soak_clean EXIT

begun=$(now_s)
deadline=$((begun + seconds))
while [ "$(now_s)" -lt $deadline ] && [ $step -lt "$steps" ]; do
    step=$((step + 1))
    : >"$tmp/says"
    : >"$err"
    choose_image
    choose_options
    choose_guest
    one_of restore_and_stop restore_and_stop kill_the_server kill_the_server kill_gmem_restore \
        kill_the_vmm damage_the_image damage_the_image snap_a_process "snap_a_process kill" \
        "snap_a_process kill" snap_a_restored_vm snap_minivmm snap_qemu
    what=$w
    case $what in
    snap_minivmm) [ $kvm = yes ] || continue ;;
    snap_qemu) [ $qemu = yes ] || continue ;;
    snap_a_process*) ;;
    *) restores=$((restores + 1)) ;;
    esac
    $what
    nobody_left
done

cat <<END
# seed $first, $(($(now_s) - begun)) s, $step steps
# $restores restores, $snapshots snapshots, $refused refused
# killed: $killed_server page servers, $killed_restore gmem-restore, $killed_vmm VMMs, $((killed_snap + killed_qemu)) gmem-snap
# $stops processes stopped and continued; $damaged images damaged, $detected told, the others hit nothing
# $faults faults, $((kib / 1024)) MiB compared
# $wrong_bytes wrong bytes, $hangs hangs, $violations violations in all
END
check "something was done" test $((restores * snapshots)) -gt 0
check "no wrong byte" test $wrong_bytes -eq 0
check "no hang" test $hangs -eq 0
check "nothing else has gone wrong" test $violations -eq 0
kill -KILL $held ${vm:+$vm} 2>/dev/null
check "nothing is left running" await none_left
done_testing

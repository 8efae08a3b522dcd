#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --qmp with a real QEMU that runs its firmware, for there is no disk.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
requires qemu-system-x86_64 socat

qemus=
qemu_clean() {
    # shellcheck disable=SC2086
    # Only what is still our child: numbers come round.
    for p in $qemus; do
        if grep -q "^PPid:[[:space:]]*$$\$" "/proc/$p/status" 2>/dev/null; then
            kill -KILL "$p" 2>/dev/null
        fi
    done
    tap_clean
}
trap qemu_clean EXIT
dir=$tmp/dir
mkdir "$dir"
qmp=$tmp/qmp
shm=/dev/shm/gmem-test-$$

# From 8.1 on QEMU leaves only files out of its state.
version=$(qemu-system-x86_64 --version | sed -n 's/.* version \([0-9]*\.[0-9]*\).*/\1/p')
case $version in
    [4-7].* | 8.0) ram=memory-backend-memfd,share=on ;;
    *) ram=memory-backend-file,share=on,mem-path=$shm ;;
esac

boot() { # ARG...: starts a QEMU with two monitors; $pid
    rm -f "$qmp" "$qmp.2"
    qemu-system-x86_64 -machine pc,accel=tcg -nodefaults -display none -S \
        -qmp "unix:$qmp,server=on,wait=off" -qmp "unix:$qmp.2,server=on,wait=off" \
        "$@" 2>"$tmp/qemu-err" &
    pid=$!
    qemus="$qemus $pid"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -S "$qmp.2" ] && return 0
        sleep 0.1
    done
    skip_all "QEMU does not start: $(cat "$tmp/qemu-err")"
}
boot_plain() { boot -m 64 -object "$ram,id=ram0,size=64M" -machine memory-backend=ram0; }
ask() { # COMMAND: what QEMU answers, through the other monitor
    printf '{"execute":"qmp_capabilities"}{"execute":"%s"}\n' "$1" |
        socat -t 1 - "UNIX-CONNECT:$qmp.2" | tail -n 1
}
status() { ask query-status | sed -n 's/.*"status": "\([a-z]*\)".*/\1/p'; }
is() { # STATUS: soon
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ "$(status)" = "$1" ] && return 0
        sleep 0.1
    done
    echo "it is $(status)"
    return 1
}
settings_are_back() {
    ask query-migrate-capabilities |
        grep -q '"state": false, "capability": "x-ignore-shared"'
}
nothing() { check "leaves nothing" test -z "$(ls -A "$dir")"; }

boot_plain
ask cont >/dev/null
sleep 0.5 # for the firmware to fill some memory
t "a running VM" 0 gmem-snap --qmp "$qmp" -o "$tmp/i" --json
check "runs on" is running
check "which is told" grep -q '"vm": "running"' "$out"
check "so is the pause" grep -Eq '"pause_ms": [0-9]+\.' "$out"
check "its settings are as before" settings_are_back
t "is whole" 0 gmem-inspect verify "$tmp/i"
check "zstd accepts it" zstd -qt "$tmp/i"
t "info" 0 gmem-inspect info "$tmp/i"
for word in ram0 device qemu-migration memfd "$version" pc-i440fx tcg nodefaults; do
    [ "$word $ram" = "memfd ${ram#*memfd}" ] || check "has $word" grep -q -- "$word" "$out"
done
t "device state" 0 gmem-inspect extract "$tmp/i" --state device -o "$tmp/device"
check "is a migration stream" test "$(head -c 4 "$tmp/device")" = QEVM
t "again" 0 gmem-snap --qmp "$qmp" --pid "$pid" -o "$tmp/i" -f
check "runs on" is running

t "--leave paused" 0 gmem-snap --qmp "$qmp" --leave paused -o "$tmp/1" --threads 1
check "is not running" is postmigrate
gmem-inspect extract "$tmp/1" -o "$tmp/1.raw" 2>/dev/null
fd=$(find "/proc/$pid/fd" -lname '*memory-backend*' | head -n 1)
[ -n "$fd" ] || fd=$shm
check "the memory is in the image" cmp "$tmp/1.raw" "$fd"
t "once more" 5 gmem-snap --qmp "$qmp" -o "$dir/i"
check "QEMU wants to run before" grep -q postmigrate "$err"
ask cont >/dev/null
ask stop >/dev/null
check "is paused" is paused
t "a paused VM" 0 gmem-snap --qmp "$qmp" -o "$tmp/i" -f --json
check "stays so" grep -q '"vm": "paused"' "$out"
check "is not running" is postmigrate
ask cont >/dev/null
ask stop >/dev/null
t "--leave running" 0 gmem-snap --qmp "$qmp" --leave running -o "$tmp/i" -f
check "is running" is running

# Interrupted, killed: a VM whose memory takes seconds to save.
noise() { # fills the guest's RAM, which is of no use to it yet
    dd if=/dev/urandom of="$fd" bs=1M seek=16 count=40 conv=notrunc 2>/dev/null
}
noise
slow="--level 19 --chunk-size 2M --threads 1"
for sig in TERM:143 HUP:129; do
    # shellcheck disable=SC2086
    gmem-snap --qmp "$qmp" $slow -o "$dir/i" 2>"$err" &
    check "${sig%:*}: the VM is paused" is postmigrate
    kill -"${sig%:*}" $!
    wait $!
    check "status ${sig#*:}" test $? -eq "${sig#*:}"
    check "runs again" is running
    check "is told in one line" test "$(cat "$err")" = \
        "gmem-snap: interrupted by SIG${sig%:*}; nothing was written, the VM runs again"
    check "its settings are as before" settings_are_back
    nothing
done
if command -v timeout >/dev/null; then
    # shellcheck disable=SC2086
    t "SIGINT" 130 timeout --preserve-status -s INT 0.7 gmem-snap --qmp "$qmp" $slow -o "$dir/i"
    check "runs again" is running
    nothing
    for ms in 01 03 06 12 25 50; do
        # shellcheck disable=SC2086
        timeout -s KILL 0.$ms gmem-snap --qmp "$qmp" $slow -o "$dir/i" 2>"$err"
        check "killed after 0.$ms s: runs again" is running
        check "its settings are as before" settings_are_back
        nothing
    done
    check "the guardian tells" grep -q 'as it was before' "$err"
fi
# shellcheck disable=SC2086
gmem-snap --qmp "$qmp" $slow -o "$dir/i" 2>"$err" &
check "the VM is paused" is postmigrate
ask cont >/dev/null
wait $!
check "somebody else lets it run: an error" test $? -eq 1
check "that is told" grep -q 'not consistent' "$err"
nothing

# shellcheck disable=SC2086
gmem-snap --qmp "$qmp" $slow --leave quit -o "$dir/i" 2>"$err" &
check "the VM is paused" is postmigrate
echo mine >"$dir/i"
wait $!
check "--leave quit, and the image cannot get its name" grep -q "dir/i: File exists" "$err"
check "the VM is not ended" is running
check "nor is the file gone" grep -qx mine "$dir/i"
rm "$dir/i"
nothing

mkdir "$tmp/mnt"
if mount -t tmpfs -o size=1m none "$tmp/mnt" 2>/dev/null; then
    t "a full disk" 1 gmem-snap --qmp "$qmp" -o "$tmp/mnt/i"
    check "is told" grep -q 'mnt/i: .*No space left' "$err"
    check "with the VM" grep -q 'the VM runs again; free some space' "$err"
    check "two lines" lines 2 "$err"
    check "runs again" is running
    t "a full disk and --leave quit" 1 gmem-snap --qmp "$qmp" --leave quit -o "$tmp/mnt/i"
    check "the VM is not ended" is running
    check "leaves nothing" test -z "$(ls -A "$tmp/mnt")"
else
    skip "a full disk" "may not mount"
fi

# shellcheck disable=SC2086
gmem-snap --qmp "$qmp" $slow -o "$dir/i" 2>"$err" &
check "the VM is paused" is postmigrate
kill -KILL "$pid"
wait $!
check "QEMU dies: status 1" test $? -eq 1
check "is told" grep -q 'nothing was written, the VM has ended' "$err"
check "two lines" lines 2 "$err"
nothing

boot_plain
t "--leave quit" 0 gmem-snap --qmp "$qmp" --leave quit -o "$tmp/q" --json
check "is told" grep -q '"vm": "ended"' "$out"
wait "$pid"
check "QEMU has ended well" test $? -eq 0
t "is whole" 0 gmem-inspect verify "$tmp/q"

refused() { # PATTERN ARG...
    pattern=$1
    shift
    boot "$@"
    t "refused: $*" 5 gmem-snap --qmp "$qmp" -o "$dir/i"
    check "is told: $pattern" grep -q -- "$pattern" "$err"
    nothing
    kill -KILL "$pid"
}
refused 'share=on' -m 64
refused 'share=on' -m 64 -object memory-backend-ram,id=ram0,size=64M -machine memory-backend=ram0
refused 'still being restored' -m 64 -object "$ram,id=ram0,size=64M" \
    -machine memory-backend=ram0 -incoming defer
rm -f "$shm"
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --qmp with a real QEMU that runs its firmware, for there is no disk.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
requires qemu-system-x86_64 socat
GMEM_SHIM=${abs_top_builddir:?}/gmem-shim.so
GMEM_PAGE_SERVER=$abs_top_builddir/gmem-page-server
export GMEM_SHIM GMEM_PAGE_SERVER

dir=$tmp/dir
mkdir "$dir"
qmp=$tmp/qmp
shm=/dev/shm/gmem-test-$$
machine=pc

version=$(qemu-system-x86_64 --version | sed -n 's/.* version \([0-9]*\.[0-9]*\).*/\1/p')
ram="memory-backend-memfd,share=on"

boot() { # ARG...: starts a QEMU with two monitors; $pid
    rm -f "$qmp" "$qmp.2"
    qemu-system-x86_64 -machine "$machine,accel=${accel:-tcg}" -nodefaults -display none -S \
        -qmp "unix:$qmp,server=on,wait=off" -qmp "unix:$qmp.2,server=on,wait=off" \
        "$@" 2>"$tmp/qemu-err" &
    pid=$!
    pids="$pids $pid"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -S "$qmp.2" ] && return 0
        sleep 0.1
    done
    skip_all "QEMU does not start: $(cat "$tmp/qemu-err")"
}
boot_plain() { boot -m 64 -object "$ram,id=ram0,size=64M" -machine memory-backend=ram0; }
# What QEMU answers, through the other monitor: COMMAND, or all of it as JSON [MONITOR].
ask() {
    case $1 in
        '{'*) question=$1 ;;
        *) question="{\"execute\":\"$1\"}" ;;
    esac
    # It answers at once, but for what the events in between are.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        answer=$(printf '{"execute":"qmp_capabilities"}%s\n' "$question" |
            socat -t 0.3 - "UNIX-CONNECT:${2:-$qmp.2}" 2>/dev/null |
            grep -E '"(return|error)"' | sed 1d | tail -n 1)
        [ -z "$answer" ] || break
    done
    printf '%s\n' "$answer"
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
    check "has $word" grep -q -- "$word" "$out"
done
t "device state" 0 gmem-inspect extract "$tmp/i" --state device -o "$tmp/device"
check "is a migration stream" test "$(head -c 4 "$tmp/device")" = QEVM
t "again" 0 gmem-snap --qmp "$qmp" --pid "$pid" -o "$tmp/i" -f
check "runs on" is running

# It runs before the image is complete: notes make the end of that larger than a pipe.
text=$(printf '%060000d' 0)
mkfifo "$tmp/pipe"
gmem-snap -q --qmp "$qmp" --annotate "a=$text" --annotate "b=$text" --annotate "c=$text" \
    -o - >"$tmp/pipe" &
snap=$!
exec 3<"$tmp/pipe"
head -c "$(wc -c <"$tmp/i")" <&3 >"$tmp/most"
head -c 40000 <&3 >>"$tmp/most"
check "the VM runs" is running
check "the image was not complete" kill -0 $snap
cat <&3 >>"$tmp/most"
exec 3<&-
wait $snap
check "it is now" test $? -eq 0
t "and whole" 0 gmem-inspect verify "$tmp/most"

t "--leave paused" 0 gmem-snap --qmp "$qmp" --leave paused -o "$tmp/1" --threads 1
check "is not running" is postmigrate
gmem-inspect extract "$tmp/1" -o "$tmp/1.raw" 2>/dev/null
fd=$(find "/proc/$pid/fd" -lname '*memory-backend*' | head -n 1)
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
noise
# shellcheck disable=SC2086
gmem-snap --qmp "$qmp" $slow -o "$dir/i" 2>"$err" &
check "the VM is paused" is postmigrate
ask cont >/dev/null
ask stop >/dev/null
wait $!
check "somebody else lets it run for a moment: an error" test $? -eq 1
check "that is told" grep -q 'not consistent' "$err"
check "it runs again" is running
nothing
noise
# shellcheck disable=SC2086
gmem-snap --qmp "$qmp" $slow -o "$dir/i" 2>"$err" &
check "the VM is paused" is postmigrate
ask system_reset >/dev/null
wait $!
check "somebody else resets it: an error" test $? -eq 1
check "that is told" grep -q 'not consistent' "$err"
ask cont >/dev/null
noise
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
refused 'memory device d0 (dimm): memory that can be plugged' \
    -m 64,slots=2,maxmem=256M -object "$ram,id=ram0,size=64M" -machine memory-backend=ram0 \
    -object "$ram,id=dimm0,size=64M" -device pc-dimm,memdev=dimm0,id=d0

# Memory that is plugged while it runs, and taken away again; an object alone is no memory.
boot -m 64,slots=2,maxmem=256M -object "$ram,id=ram0,size=64M" -machine memory-backend=ram0
ask '{"execute":"object-add","arguments":{"qom-type":"memory-backend-memfd","id":"dimm0",
"size":67108864,"share":true}}' >/dev/null
t "an object that is nobody's memory" 0 gmem-snap --qmp "$qmp" -o "$tmp/i" -f --leave running
t "is not in the image" 0 gmem-inspect info "$tmp/i"
check "but the memory is" grep -q ram0 "$out"
check "indeed" sh -c '! grep -q dimm0 "$1"' - "$out"
ask '{"execute":"device_add","arguments":{"driver":"pc-dimm","id":"d1","memdev":"dimm0"}}' >/dev/null
t "refused: memory that was plugged in" 5 gmem-snap --qmp "$qmp" -o "$dir/i"
check "is told by name" grep -q 'memory device d1 (dimm)' "$err"
check "the VM runs" is running
nothing
kill -KILL "$pid"

# Each kind of memory, on each machine, both ways of running it: the image has what
# is there, and QEMU loads it.
runs() { ask query-status "$1" | grep -q '"status": "running"'; }
whole() { # MACHINE ACCEL BACKEND [nodes]
    machine=$1 accel=$2
    name="$1, $2, $3${4:+, $4}"
    # shellcheck disable=SC2054
    if [ -n "${4:-}" ]; then
        set -- -m 48 -numa node,memdev=n0 -numa node,memdev=n1
        memory="-object $ram,id=n0,size=32M -object $ram,id=n1,size=16M"
        again="-object $file={mem:n0},id=n0,size=32M -object $file={mem:n1},id=n1,size=16M"
        region=n1 skip=0
    else
        set -- -m 48 -machine memory-backend=ram0
        memory="-object $ram,id=ram0,size=48M"
        again="-object $file={mem},id=ram0,size=48M"
        region=ram0 skip=33554432
    fi
    # shellcheck disable=SC2086
    boot "$@" $memory -device "loader,file=$tmp/noise,addr=0x2004000,force-raw=on"
    ask cont >/dev/null
    t "$name: is saved" 0 gmem-snap --qmp "$qmp" --leave paused -o "$tmp/w" -f
    rm -f "$tmp/w.raw" "$tmp/w.mem"
    gmem-inspect extract "$tmp/w" --region $region -o "$tmp/w.raw" 2>/dev/null
    ask "{\"execute\":\"pmemsave\",\"arguments\":{\"val\":33554432,\"size\":16777216,
\"filename\":\"$tmp/w.mem\"}}" >/dev/null
    check "$name: the memory is in the image" cmp -i 0:$skip "$tmp/w.mem" "$tmp/w.raw"
    check "$name: there is some" cmp -n 100000 -i 0:16384 "$tmp/noise" "$tmp/w.mem"
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    rm -f "$tmp/qmp3"
    # shellcheck disable=SC2086
    gmem-restore --qmp "$tmp/qmp3" "$tmp/w" -- qemu-system-x86_64 \
        -machine "$machine,accel=$accel" -nodefaults -display none "$@" $again \
        -qmp "unix:$tmp/qmp3,server=on,wait=off" -incoming defer >"$tmp/w.log" 2>&1 &
    restore=$!
    loaded=false
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ -S "$tmp/qmp3" ] && runs "$tmp/qmp3" && loaded=true && break
        sleep 0.1
    done
    check "$name: QEMU loads it" $loaded
    $loaded || sed 's/^/# /' "$tmp/w.log"
    kill -TERM $restore
    wait $restore
    rm -f "$shm"
}
head -c 100000 /dev/urandom >"$tmp/noise"
file="memory-backend-file,share=on,mem-path"
ram="memory-backend-memfd,share=on"
whole q35 tcg memfd
whole pc tcg memfd nodes
ram=$file=$shm
whole microvm tcg file
case $version in
    [4-8].* | 9.0) ;;
    *)
        ram="memory-backend-shm,share=on"
        whole pc tcg shm
        ;;
esac
ram="memory-backend-ram,share=on"
whole q35 tcg ram
if [ -w /dev/kvm ]; then
    ram="memory-backend-memfd,share=on"
    whole microvm kvm memfd
    whole pc kvm memfd
    whole q35 kvm memfd nodes
else
    skip "KVM" "no access to /dev/kvm"
fi
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Files that QEMU 10 wrote with mapped-ram, of firmware that runs: what gmem-snap makes of
# them, whole and damaged.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
requires socat
GMEM_SHIM=${abs_top_builddir:?}/gmem-shim.so
GMEM_PAGE_SERVER=$abs_top_builddir/gmem-page-server
export GMEM_SHIM GMEM_PAGE_SERVER
qemu13=$("$abs_top_srcdir/tests/guest/build-qemu13" 2>"$tmp/build") ||
    skip_all "no QEMU of Debian 13: $(tail -n 1 "$tmp/build")"
PATH=${qemu13%/*}:$PATH
qmp=$tmp/qmp
pid=
mapped_clean() {
    [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
    tap_clean
}
trap mapped_clean EXIT
head -c 100000 /dev/urandom >"$tmp/noise"

ask() { # COMMAND...: what is answered to the last
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        answer=$({ printf '{"execute":"qmp_capabilities"}' && printf '%s' "$@"; } |
            socat -t 0.3 - "UNIX-CONNECT:$qmp" 2>/dev/null | grep -E '"(return|error)"' |
            sed 1d | tail -n 1)
        [ -z "$answer" ] || break
    done
    printf '%s\n' "$answer"
}
completed() { ask '{"execute":"query-migrate"}' | grep -q '"status": "completed"'; }
save() { # URI CAPABILITIES ARG...: one VM with noise at 32 MiB into a file, its memory into $tmp/mem
    uri=$1 capabilities=
    for c in $2; do
        capabilities="$capabilities${capabilities:+,}{\"capability\":\"$c\",\"state\":true}"
    done
    shift 2
    rm -f "$qmp" "$tmp/mem"
    qemu-system-x86_64 -accel tcg -nodefaults -display none "$@" \
        -device "loader,file=$tmp/noise,addr=0x2004000,force-raw=on" \
        -qmp "unix:$qmp,server=on,wait=off" 2>"$tmp/qemu-err" &
    pid=$!
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -S "$qmp" ] && break
        sleep 0.1
    done
    ask '{"execute":"migrate-set-capabilities","arguments":{"capabilities":['"$capabilities"']}}' \
        '{"execute":"migrate","arguments":{"uri":"'"$uri"'"}}' >/dev/null
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        completed && break
        sleep 0.1
    done
    ask '{"execute":"pmemsave","arguments":{"val":33554432,"size":16777216,
"filename":"'"$tmp/mem"'"}}' >/dev/null
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    pid=
}
imported() { # NAME FILE REGION SKIP OPTION...
    name=$1 file=$2 region=$3 skip=$4
    shift 4
    rm -f "$tmp/raw"
    t "$name: is imported" 0 gmem-snap --mapped-ram "$file" -f -o "$tmp/i" "$@"
    t "$name: is whole" 0 gmem-inspect verify "$tmp/i"
    t "$name: has $region" 0 gmem-inspect extract "$tmp/i" --region "$region" -o "$tmp/raw"
    check "$name: with what QEMU had" cmp -i "0:$skip" "$tmp/mem" "$tmp/raw"
    check "$name: which was not nothing" cmp -n 100000 -i 0:16384 "$tmp/noise" "$tmp/mem"
}
loads() { # NAME QEMU-ARG...: QEMU takes the image
    name=$1
    shift
    rm -f "$qmp"
    gmem-restore --qmp "$qmp" "$tmp/i" -- qemu-system-x86_64 -accel tcg -nodefaults \
        -display none "$@" -qmp "unix:$qmp,server=on,wait=off" -incoming defer \
        >"$tmp/log" 2>&1 &
    restore=$!
    loaded=false
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ -S "$qmp" ] && ask '{"execute":"query-status"}' | grep -q '"status": "running"' &&
            loaded=true && break
        sleep 0.1
    done
    check "$name: QEMU loads it" $loaded
    $loaded || sed 's/^/# /' "$tmp/log"
    kill -TERM $restore
    wait $restore
}
backend=memory-backend-file,share=on,mem-path

save "file:$tmp/plain" mapped-ram -machine q35 -m 48 -vga std
imported "anonymous memory" "$tmp/plain" pc.ram 33554432
loads "anonymous memory" -machine q35,memory-backend=pc.ram -m 48 -vga std \
    -object "$backend={mem},id=pc.ram,size=48M"
gmem-inspect extract "$tmp/i" --state device -o "$tmp/state" 2>/dev/null
check "the video memory is in the state" grep -q vga.vram "$tmp/state"

# As libvirt does it, with threads, behind a header of its own.
printf 'LibvirtQemudSave%048d<domain/>' 0 >"$tmp/libvirt"
save "file:$tmp/libvirt,offset=65536" 'mapped-ram multifd' -machine pc -m 48 \
    -machine memory-backend=pc.ram -object memory-backend-memfd,id=pc.ram,size=48M,share=on
imported "libvirt's file" "$tmp/libvirt" pc.ram 33554432
loads "libvirt's file" -machine pc,memory-backend=pc.ram -m 48 \
    -object "$backend={mem},id=pc.ram,size=48M"
printf Part | dd of="$tmp/libvirt" bs=1 seek=12 conv=notrunc 2>/dev/null
t "that is not finished" 4 gmem-snap --mapped-ram "$tmp/libvirt" -o "$tmp/no"
check "is told" grep -q 'libvirt has not finished it' "$err"
printf 'LibvirtQemudSave%048d<domain/>' 0 >"$tmp/other"
t "of another format" 5 gmem-snap --mapped-ram "$tmp/other" -o "$tmp/no"
check "is told" grep -q 'image-format sparse' "$err"

# Nodes (not running: QEMU 10.0 with TCG may die of an assertion in tlb_reset_dirty_range_all
# when it migrates several blocks while the guest writes).  With x-ignore-shared too the file says where they are.
nodes="-S -numa node,memdev=n0 -numa node,memdev=n1"
objects="-object $backend={mem:n0},id=n0,size=32M -object $backend={mem:n1},id=n1,size=16M"
for with in mapped-ram 'mapped-ram x-ignore-shared'; do
    # shellcheck disable=SC2086
    save "file:$tmp/nodes" "$with" -machine pc -m 48 $nodes \
        -object memory-backend-memfd,id=n0,size=32M,share=on \
        -object memory-backend-memfd,id=n1,size=16M,share=on
    imported "two nodes, $with" "$tmp/nodes" n1 0
    # shellcheck disable=SC2086
    loads "two nodes, $with" -machine pc -m 48 $nodes $objects
done
# The list is by size: the smaller node 0 comes second, and must be named first.
# shellcheck disable=SC2086
save "file:$tmp/nodes" mapped-ram -machine pc -m 48 $nodes \
    -object memory-backend-memfd,id=n0,size=16M,share=on \
    -object memory-backend-memfd,id=n1,size=32M,share=on
imported "in the order of --region" "$tmp/nodes" n1 16777216 --region n0 --region n1
objects="-object $backend={mem:n0},id=n0,size=16M -object $backend={mem:n1},id=n1,size=32M"
# shellcheck disable=SC2086
loads "in the order of --region" -machine pc -m 48 $nodes $objects

t "without it" 0 gmem-snap --mapped-ram "$tmp/nodes" -f -o "$tmp/i"
# shellcheck disable=SC2086
gmem-restore --qmp "$qmp" "$tmp/i" -- qemu-system-x86_64 -accel tcg -nodefaults -display none \
    -machine pc -m 48 $nodes $objects -qmp "unix:$qmp,server=on,wait=off" -incoming defer \
    >"$tmp/log" 2>&1
check "QEMU takes no node for another" grep -q 'Mismatched GPAs' "$tmp/log"

t "memory that QEMU would want in the state" 2 gmem-restore --qmp "$qmp" "$tmp/i" -- \
    qemu-system-x86_64 -machine pc -m 48 -object memory-backend-memfd,id=n0,size=16M,share=on \
    -object "$backend={mem:n1},id=n1,size=32M"
check "is refused with what is wanted" \
    grep -q -- 'id=n0,size=16777216,share=on,mem-path={mem:n0} is wanted' "$err"

# What is wrong.
wrong() { # NAME STATUS FILE SAYS OPTION...
    says=$4
    name=$1 status=$2 file=$3
    shift 4
    t "$name" "$status" gmem-snap --mapped-ram "$file" -o "$tmp/no" "$@"
    check "is told: $says" grep -q -- "$says" "$err"
    check "one line" lines 1 "$err"
    check "leaves nothing" test ! -e "$tmp/no"
}
size=$(stat -c %s "$tmp/plain")
head -c $((size - 1000)) "$tmp/plain" >"$tmp/cut"
wrong "cut in its last part" 3 "$tmp/cut" 'is not that of a migration stream'
head -c 30000000 "$tmp/plain" >"$tmp/cut"
wrong "cut in its memory" 3 "$tmp/cut" 'cut: .* ends at byte'
wrong "no such block" 1 "$tmp/plain" 'no RAM block ram7' --region ram7
wrong "a block twice" 1 "$tmp/plain" 'only one RAM block pc.ram' \
    --region pc.ram --region pc.ram
wrong "another file" 3 "$tmp/noise" 'no migration stream of QEMU'
wrong "no file" 1 "$tmp/none" 'No such file'
wrong "a folder" 1 "$tmp" 'is not a file'
save "file:$tmp/stream" x-ignore-shared -machine pc -m 48
wrong "without mapped-ram" 5 "$tmp/stream" 'without mapped-ram'
t "--mapped-ram with --qmp" 2 gmem-snap --mapped-ram "$tmp/plain" --qmp x -o "$tmp/no"
done_testing

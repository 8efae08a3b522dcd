#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A file system that is full at any point of any file that is written, that can only be read,
# a limit on the size of files: nothing half is left, what was there stays, the VM runs.
if [ -z "$GMEM_TEST_MOUNTS" ]; then
    # In a name space of its own, so that nobody else sees what is mounted.
    GMEM_TEST_MOUNTS=1 unshare -m true 2>/dev/null && GMEM_TEST_MOUNTS=1 exec unshare -m "$0"
fi
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd
mnt=$tmp/mnt
mkdir "$mnt"
mount -t tmpfs -o size=64k gmem-test "$mnt" 2>"$err" || skip_all "mount: $(cat "$err")"
vm=
space_clean() {
    [ -z "$vm" ] || kill -KILL "$vm" 2>/dev/null
    vmm_clean
}
trap space_clean EXIT
bad=$tmp/bad
filler=

size() { mount -o "remount,size=${1}k" "$mnt"; }
room() { # what is free, KiB
    df -k "$mnt" | awk 'NR == 2 { print $4 }'
}
running() {
    read -r line <"/proc/$vm/stat"
    line=${line##*) }
    case $line in [Tt]*) return 1 ;; esac
}
wrong() { echo "$at: $*" >>"$bad"; }
says() { grep -Eq -- "$1" "$err" || wrong "does not say '$1': $(cat "$err")"; }

# NAME FILE SAYS COMMAND...: with 4 KiB, with 8 KiB… until it fits.
each_size() {
    name=$1 file=$2 says=$3
    shift 3
    kib=4 tries=0 status=1
    : >"$bad"
    while [ $status -ne 0 ] && [ $tries -lt 400 ]; do
        rm -rf "${mnt:?}/"*
        size $kib
        # One page is the least that there can be, and enough for small files.
        rm -f "$mnt/.filler"
        [ -z "$filler" ] || [ $tries -gt 0 ] || head -c 4096 /dev/zero >"$mnt/.filler"
        at="$kib KiB"
        timeout -k 5 60 "$@" >"$out" 2>"$err" </dev/null
        status=$?
        tries=$((tries + 1))
        [ $status -eq 0 ] || [ $status -eq 1 ] || wrong "status $status"
        if [ $status -eq 0 ]; then
            [ -s "$mnt/$file" ] || wrong "no file"
        else
            left=$(find "$mnt" -mindepth 1 ! -name .filler)
            [ -z "$left" ] || wrong "left: $left"
            says "$says"
            [ "$(wc -l <"$err")" -le 2 ] || wrong "more than two lines"
        fi
        [ -z "$vm" ] || running || wrong "the VM does not run"
        kib=$((kib + 4))
    done
    [ $status -eq 0 ] || wrong "never succeeds"
    check "$name: $tries sizes up to $kib KiB" empty "$bad"
    check "$name: there was too little at first" test $tries -ge "$least"
}
empty() { [ ! -s "$1" ] || { cat "$1" && false; }; }

# ---- gmem-snap ----
mkfifo "$tmp/ready"
hold-memory "ram=1:$tmp/ram" >"$tmp/ready" 2>"$err" &
vm=$!
read -r answer <"$tmp/ready"
[ "$answer" = ready ] || skip_all "hold-memory does not run"
full='No space left on device'
least=10
each_size "gmem-snap" i "$full" gmem-snap -q --pid "$vm" --level 1 -o "$mnt/i"
t "the last one is whole" 0 gmem-inspect verify "$mnt/i"
gmem-snap -q --pid "$vm" --level 1 -o "$tmp/i"
check "and equal to one elsewhere" cmp "$mnt/i" "$tmp/i"
each_size "to a pipe and then the disk" i "$full" sh -c \
    'gmem-snap -q --pid '"$vm"' -o - >"$0/i" || { rm "$0/i"; exit 1; }' "$mnt"
least=1
each_size "--json to it" i "$full" sh -c \
    'gmem-snap --json --pid '"$vm"' -f -o "$1" >"$0/i" || { rm "$0/i"; exit 1; }' "$mnt" "$tmp/i2"

# What is there stays, also when its successor does not fit.
size 4096
rm -f "$mnt/"*
cp "$tmp/i" "$mnt/i"
cp "$tmp/i" "$tmp/before"
: >"$bad"
blocks=1 status=1
while [ $status -ne 0 ] && [ $blocks -lt 4000 ]; do
    at="ulimit -f $blocks"
    (
        ulimit -f $blocks
        gmem-snap -q --pid "$vm" --level 19 -f -o "$mnt/i" 2>"$err"
    )
    status=$?
    [ $status -eq 0 ] || {
        cmp -s "$mnt/i" "$tmp/before" || wrong "the old image is gone"
        [ $status -eq 1 ] || wrong "status $status"
        says 'File too large'
        says 'ulimit'
    }
    [ "$(ls -A "$mnt")" = i ] || wrong "left: $(ls -A "$mnt")"
    running || wrong "the VM does not run"
    blocks=$((blocks + 29))
done
check "limits on the size of a file, up to $blocks blocks" empty "$bad"
t "to /dev/full" 1 sh -c 'gmem-snap -q --pid '"$vm"' -o - >/dev/full'
check "says why" grep -q "$full" "$err"
kill -KILL "$vm"
wait "$vm" 2>/dev/null
vm=

# ---- gmem-inspect ----
least=10
rm -f "$mnt/"*
each_size "gmem-inspect extract" raw "$full" \
    gmem-inspect extract "$tmp/before" --region ram -o "$mnt/raw"
check "equal" cmp "$mnt/raw" "$tmp/ram"
t "extract to /dev/full" 1 sh -c "gmem-inspect extract '$tmp/before' --region ram -o - >/dev/full"
for what in info map verify root; do
    t "$what to /dev/full" 1 sh -c "gmem-inspect $what '$tmp/before' >/dev/full"
done

# ---- gmem-restore ----
image a 16384 ram=memfd,4,20,2
size 4096
rm -f "$mnt/"*
guest="vmm-touch open={mem} pattern=2,20 map touch=2"
least=1 filler=yes
# The guest runs all the same.
# shellcheck disable=SC2086
each_size "--stats" stats "$full" gmem-restore --stats "$mnt/stats" "$image" -- $guest
# shellcheck disable=SC2086
each_size "--record" trace "$full" gmem-restore --record "$mnt/trace" "$image" -- $guest
for what in --stats --record; do
    # shellcheck disable=SC2086
    t "$what on /dev/full" 1 gmem-restore $what /dev/full "$image" -- $guest
    # shellcheck disable=SC2086
    t "$what in a folder that is not there" 1 gmem-restore $what "$tmp/none/x" "$image" -- $guest
done

# ---- a file system that can only be read, or is full ----
size 4096
rm -f "$mnt/"* "$mnt/.filler"
cp "$image" "$mnt/a"
head -c 8388608 /dev/zero >"$mnt/filler" 2>/dev/null
check "nothing is free" test "$(room)" -eq 0
on="full file system"
for _ in 1 2; do
    # shellcheck disable=SC2086
    t "$on: a restore" 0 gmem-restore "$mnt/a" -- $guest
    t "$on: verify" 0 gmem-inspect verify "$mnt/a"
    t "$on: a new image" 1 gmem-snap --file "$tmp/ram" -o "$mnt/b"
    check "$on: nothing new" test "$(echo "$mnt"/*)" = "$mnt/a $mnt/filler"
    mount -o remount,ro "$mnt"
    on="read-only file system"
done
check "says so" grep -q 'Read-only file system' "$err"
mount -o remount,rw "$mnt"

check "nothing is left running" none_left
umount "$mnt"
done_testing

#!/bin/sh
# SPDX-License-Identifier: 0BSD
# Run a virtual machine that gmem can save, save it, and end it.
#
# usage: qemu-snapshot.sh IMAGE SECONDS [QEMU-ARGUMENT...]
#
# The VM runs for so many seconds.  Without further arguments it only boots the
# firmware; give it -kernel and -initrd, or disks, and it has something to do.
# Disks are not part of the image: keep them as they were at the snapshot.
set -eu

[ $# -ge 2 ] || { echo "usage: $0 IMAGE SECONDS [QEMU-ARGUMENT...]" >&2; exit 2; }
image=$1 seconds=$2
shift 2

# share=on lets gmem read the memory, which is a file that is removed in the end.
# (memory-backend-memfd, without a mem-path, does as well; from QEMU 8.1 on the
# pause is longer.)
# The restored VM needs all the rest in the same way.  To restore it with another
# version of QEMU, name the version of the machine, as in pc-q35-7.2.
ram=/dev/shm/gmem-example-$$
qemu-system-x86_64 \
    -machine q35,accel=tcg,memory-backend=ram0 \
    -cpu max \
    -smp 2 \
    -m 64M \
    -object "memory-backend-file,id=ram0,size=64M,share=on,mem-path=$ram" \
    -nodefaults \
    -display none \
    -serial "file:$image.serial" \
    -qmp "unix:$image.qmp,server=on,wait=off" \
    "$@" &
qemu=$!
trap 'kill $qemu 2>/dev/null || :; rm -f "$image.qmp" "$ram"' EXIT
trap 'exit 1' HUP INT TERM

sleep "$seconds"

# QEMU is found by its socket, stands still while it is read, and is ended.
# With --leave running it would just go on.
gmem-snap --qmp "$image.qmp" --leave quit -o "$image"
wait $qemu

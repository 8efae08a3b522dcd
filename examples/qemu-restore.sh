#!/bin/sh
# SPDX-License-Identifier: 0BSD
# Bring back the virtual machine that qemu-snapshot.sh has saved.
#
# usage: qemu-restore.sh IMAGE [QEMU-ARGUMENT...]
#
# The further arguments are those that qemu-snapshot.sh got.  The VM goes on at
# once; its pages come as it needs them, and all others in the background.  It
# ends when QEMU ends, and with QEMU's exit status.
set -eu

[ $# -ge 1 ] || { echo "usage: $0 IMAGE [QEMU-ARGUMENT...]" >&2; exit 2; }
image=$1
shift

# The same as in qemu-snapshot.sh, but for two lines: the memory comes from
# gmem-restore, which replaces {mem} by its path, and with -incoming defer QEMU
# waits for the state of its devices, which gmem-restore sends by QMP.
exec gmem-restore --qmp "$image.qmp" "$image" -- qemu-system-x86_64 \
    -machine q35,accel=tcg,memory-backend=ram0 \
    -cpu max \
    -smp 2 \
    -m 64M \
    -object "memory-backend-file,id=ram0,size=64M,share=on,mem-path={mem}" \
    -nodefaults \
    -display none \
    -serial "file:$image.serial" \
    -qmp "unix:$image.qmp,server=on,wait=off" \
    -incoming defer \
    "$@"

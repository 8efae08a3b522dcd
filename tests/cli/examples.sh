#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The scripts in examples/ do what they say, with a VM that only runs its firmware.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
requires qemu-system-x86_64 timeout

examples=$abs_top_srcdir/examples
GMEM_SHIM=${abs_top_builddir:?}/gmem-shim.so
GMEM_PAGE_SERVER=$abs_top_builddir/gmem-page-server
export GMEM_SHIM GMEM_PAGE_SERVER

restore=
end() {
    [ -z "$restore" ] || kill "$restore" 2>/dev/null
    tap_clean
}
trap end EXIT

t "usage of qemu-snapshot.sh" 2 "$examples/qemu-snapshot.sh" "$tmp/a.gmem"
t "usage of qemu-restore.sh" 2 "$examples/qemu-restore.sh"

# The firmware has found nothing to boot after this time, and waits for ever.
t "qemu-snapshot.sh" 0 timeout 60 "$examples/qemu-snapshot.sh" "$tmp/a.gmem" 4
t "the image is whole" 0 gmem-inspect verify "$tmp/a.gmem"

timeout 60 "$examples/qemu-restore.sh" "$tmp/a.gmem" >"$tmp/restore" 2>&1 </dev/null &
restore=$!
# It is refused until the restored VM listens and has all its memory.
tries=0
until gmem-snap --qmp "$tmp/a.gmem.qmp" --leave quit -o "$tmp/b.gmem" >"$tmp/snap" 2>&1; do
    tries=$((tries + 1))
    if [ $tries -eq 200 ] || ! kill -0 $restore 2>/dev/null; then
        break
    fi
    sleep 0.1
done
wait $restore
check "qemu-restore.sh ends with QEMU" test $? -eq 0
restore=
sed 's/^/# /' "$tmp/restore" "$tmp/snap"
t "the image of the restored VM is whole" 0 gmem-inspect verify "$tmp/b.gmem"

# What may differ is the firmware's clock, in the BIOS data area, and little else.
t "extract the first" 0 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/a.raw"
t "extract the second" 0 gmem-inspect extract "$tmp/b.gmem" -o "$tmp/b.raw"
cmp -l "$tmp/a.raw" "$tmp/b.raw" >"$tmp/differ" 2>&1
head -n 20 "$tmp/differ" | sed 's/^/# /'
check "the memory is what it was" test "$(wc -l <"$tmp/differ")" -le 64
check "and is not empty" test "$(tr -d '\0' <"$tmp/b.raw" | wc -c)" -ge 65536
done_testing

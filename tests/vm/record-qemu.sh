#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A real guest: what it touches is recorded, much the same each time; and it runs, before and
# after recording has ended, and when its working set is given first.
. "${abs_top_srcdir:?}/tests/lib/qemu-guest.sh"
requires qemu-system-x86_64
ram=memory-backend-memfd

boot microvm
check "a guest boots" patiently grep -q 'GUEST READY' "$tmp/s1"
check "it runs" patiently sums "$tmp/s1" 1
t "a snapshot" 0 gmem-snap --qmp "$tmp/q1" -o "$tmp/vm.gmem"
kill -KILL "$qemu"
wait "$qemu" 2>/dev/null

for n in 1 2; do
    restore microvm "$tmp/vm.gmem" "$tmp/r$n" "-v --record $tmp/$n.trace --record-until ready"
    check "$n: it runs while it is recorded" patiently sums "$tmp/r$n" 1
    kill -USR2 "$restore"
    check "$n: there is a trace" patiently test -s "$tmp/$n.trace"
    check "$n: then all is filled" patiently grep -q 'all memory is there' "$tmp/restore-out"
    check "$n: it goes on" goes_on "$tmp/r$n"
    check "$n: its memory is right" all_right "$tmp/r$n" 1
    end_vm
done
t "two recordings" 0 gmem-inspect trace --image "$tmp/vm.gmem" "$tmp/1.trace" "$tmp/2.trace"
sed 's/^/# /' "$out"
pages=$(sed -n 's/^touched *\([0-9]*\) pages.*/\1/p' "$out" | head -n 1)
check "are of a part of the memory" test "$pages" -gt 500 -a "$pages" -lt $((mib * 256 * 3 / 4))
check "and much the same" awk '$1 == "coverage" || $1 == "precision" { sub(/>/, "", $2); n += $2 + 0 > 70 }
    END { exit n != 2 }' "$out"

t "merged" 0 gmem-inspect trace --merge union -o "$tmp/u.trace" "$tmp/1.trace" "$tmp/2.trace"
t "packed" 0 gmem-snap -q --from "$tmp/vm.gmem" --hot "$tmp/u.trace" -o "$tmp/hot.gmem"
restore microvm "$tmp/hot.gmem" "$tmp/r3" --no-background
check "with its working set first it runs" patiently counts "$tmp/r3"
check "its memory is right" all_right "$tmp/r3" 1
end_vm
check "nothing is left running" none_left
done_testing

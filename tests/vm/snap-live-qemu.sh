#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --qmp --pause-less: a real guest is saved while it runs on, and restored.
. "${abs_top_srcdir:?}/tests/lib/qemu-guest.sh"
requires qemu-system-x86_64

ram=memory-backend-memfd
boot q35
check "a guest boots" patiently grep -q 'GUEST READY' "$tmp/s1"
check "it runs" patiently sums "$tmp/s1" 1
gmem-snap -v --qmp "$tmp/q1" --pause-less -o "$tmp/1.gmem" >"$out" 2>"$err"
status=$?
if [ $status -eq 5 ] && grep -Eq 'may not create|architecture|write-protect' "$err"; then
    skip_all "$(tail -n 1 "$err")"
fi
check "saved while it runs" test $status -eq 0
sed 's/^/# /' "$out" "$err"
check "it was written to meanwhile" grep -Eq '[1-9][0-9]* pages were written before' "$err"
check "it goes on" goes_on "$tmp/s1"
low=$(last_counter "$tmp/s1")
t "once more" 0 gmem-snap --qmp "$tmp/q1" --pause-less -o "$tmp/2.gmem" --json
high=$(last_counter "$tmp/s1")
check "it runs" grep -q '"vm": "running"' "$out"
check "nothing is protected any more" sh -c "! grep -q '^VmFlags:.* uw' /proc/$qemu/smaps"
check "it goes on" goes_on "$tmp/s1"
check "its memory is right" all_right "$tmp/s1" 2
kill -KILL "$qemu"
wait "$qemu" 2>/dev/null

restore q35 "$tmp/2.gmem" "$tmp/s2" ""
check "restored, it runs" patiently counts "$tmp/s2"
check "its counter goes on from the snapshot" \
    between "$low" "$(first_counter "$tmp/s2")" $((high + 2))
check "its memory is right" all_right "$tmp/s2" 2
end_vm
check "QEMU ends by SIGTERM as it always does" test $? -eq 0
restore q35 "$tmp/1.gmem" "$tmp/s3" "--eager"
check "the first image, restored eagerly, is right" all_right "$tmp/s3" 1
end_vm

# A filter that does not know the call would kill QEMU.
boot q35 -object "$ram,id=ram0,size=${mib}M,share=on" -sandbox on
check "one with a sandbox boots" patiently grep -q 'GUEST READY' "$tmp/s1"
t "is refused" 5 gmem-snap --qmp "$tmp/q1" --pause-less -o "$tmp/3.gmem"
check "with the reason" grep -q seccomp "$err"
check "and goes on" goes_on "$tmp/s1"
t "without --pause-less it is saved" 0 gmem-snap --qmp "$tmp/q1" -o "$tmp/3.gmem"
done_testing

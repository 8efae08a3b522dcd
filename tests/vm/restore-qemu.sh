#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A real guest: Linux in QEMU, saved under load, killed, and restored lazily.
# The guest itself says whether its memory is right, and counts on.
. "${abs_top_srcdir:?}/tests/lib/qemu-guest.sh"
requires qemu-system-x86_64

# A file as well as what QEMU sends though it is shared are in qemu13.sh.
ram=memory-backend-memfd

whole_way q35
q35=$tmp/q35.gmem
check "faults were served" grep -Eq '"stored": [1-9]' "$tmp/stats"

# A guest that is not all there cannot be saved; it runs on.
restore q35 "$q35" "$tmp/s3" "--no-background"
patiently counts "$tmp/s3"
t "a snapshot of a guest that is not all there" 5 gmem-snap --qmp "$tmp/q2" -o "$tmp/early.gmem"
check "is refused with a reason" grep -q 'restore' "$err"
check "and leaves nothing" test ! -e "$tmp/early.gmem"
check "the guest goes on" goes_on "$tmp/s3"
check "its memory is right without background" all_right "$tmp/s3" 1
end_vm

# When it is complete it is a guest like any other.
restore q35 "$q35" "$tmp/s4" "-v"
check "a restore is complete" patiently grep -q 'all memory is there' "$tmp/restore-out"
patiently counts "$tmp/s4"
t "a snapshot of a restored guest" 0 gmem-snap --qmp "$tmp/q2" -o "$tmp/second.gmem"
check "the guest goes on" goes_on "$tmp/s4"
end_vm
restore q35 "$tmp/second.gmem" "$tmp/s5" "--eager"
check "the second image, restored eagerly, is right" all_right "$tmp/s5" 1
end_vm

# kill -9
seed=$(($(date +%s) % 30000))
echo "# random numbers begin at $seed"
nap() { # MS: up to
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    sleep "$(printf '%d.%03d' $((seed / 8 % $1 / 1000)) $((seed / 8 % $1 % 1000)))"
}
left=0 wrong=0
for _ in 1 2 3 4 5 6; do
    restore q35 "$q35" "$tmp/s6" ""
    nap 1500
    kill -KILL "$restore"
    wait "$restore" 2>/dev/null
    await none_left || left=$((left + 1))
    ! grep -q BAD "$tmp/s6" 2>/dev/null || wrong=$((wrong + 1))
done
check "kill -9 of gmem-restore: no QEMU is left" test $left -eq 0
check "and no guest has seen wrong memory" test $wrong -eq 0
bad=0
for _ in 1 2 3; do
    restore q35 "$q35" "$tmp/s7" ""
    await test -S "$tmp/q2"
    nap 800
    pid=$(cat "/proc/$restore/task/$restore/children")
    # shellcheck disable=SC2086
    kill -KILL $pid
    wait "$restore" 2>/dev/null
    status=$?
    [ $status -eq 137 ] || {
        bad=$((bad + 1))
        echo "# process '$pid', status $status:"
        sed 's/^/# /' "$tmp/restore-out"
    }
done
check "kill -9 of QEMU: gmem-restore ends as it did" test $bad -eq 0

restore q35 "$q35" "$tmp/s8" "-v"
patiently grep -q 'all memory is there' "$tmp/restore-out"
patiently counts "$tmp/s8"
bad=0
for _ in 1 2 3 4; do
    rm -f "$tmp/killed.gmem"
    gmem-snap --qmp "$tmp/q2" --level 9 --threads 1 -o "$tmp/killed.gmem" 2>"$tmp/snap-err" &
    snap=$!
    nap 400
    kill -KILL $snap
    wait $snap 2>/dev/null
    [ ! -e "$tmp/killed.gmem" ] || gmem-inspect verify "$tmp/killed.gmem" || bad=$((bad + 1))
    goes_on "$tmp/s8" || bad=$((bad + 10))
done
check "kill -9 of gmem-snap: the guest goes on, no image is half done" test $bad -eq 0
t "the next snapshot works" 0 gmem-snap --qmp "$tmp/q2" -f -o "$tmp/killed.gmem"
check "the guest's memory is right" all_right "$tmp/s8" 1
end_vm

whole_way pc
whole_way microvm
check "nothing is left running" none_left
# --orphan wait: killed before the state is loaded, and after.
# shellcheck disable=SC2317
waits_or_ended() { grep -q 'waits for' "$tmp/restore-out" || none_left; }
left=0
for _ in 1 2 3; do
    restore q35 "$q35" "$tmp/s8" "--orphan wait=$tmp/place"
    nap 300
    kill -KILL "$restore"
    wait "$restore" 2>/dev/null
    await waits_or_ended || left=$((left + 1))
    # Who is asked to end before he has adopted it leaves it waiting.
    for wait in 0.2 1 5 20; do
        gmem-restore --adopt "$tmp/place" 2>"$tmp/adopt" &
        sleep $wait
        kill -TERM $! 2>/dev/null
        wait $!
        await none_left && break
    done
    none_left || left=$((left + 1))
done
check "kill -9 before QEMU is whole: it is stopped, or can be adopted" test $left -eq 0
restore q35 "$q35" "$tmp/s9" "--no-background --orphan wait=$tmp/place"
patiently counts "$tmp/s9"
kill -KILL "$restore"
wait "$restore" 2>/dev/null
gmem-restore --adopt "$tmp/place" >"$tmp/adopt" 2>&1 &
restore=$!
check "kill -9 of a guest that runs, and adopted: it goes on" goes_on "$tmp/s9"
check "its memory is right" all_right "$tmp/s9" 1
end_vm
check "it ends by SIGTERM as ever" test $? -eq 0

done_testing

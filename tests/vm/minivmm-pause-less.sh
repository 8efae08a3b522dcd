#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# examples/minivmm under KVM is saved while its guest writes and gives pages back: it notices
# nothing, and every image goes on with the result of a run that was never broken.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
[ -w /dev/kvm ] || skip_all "no usable /dev/kvm"
needs_userfaultfd

guest="--size 6 --rounds ${GMEM_TEST_ROUNDS:-40} --writes 40 --free 2"
cd "$tmp" || exit 99
worked() { [ "$(wc -l <half)" -ge "$1" ]; }
# shellcheck disable=SC2086
start() { # OPTION...
    rm -f control.sock
    : >half
    minivmm $guest --control control.sock "$@" >half 2>half.err &
    vm=$!
    await worked 3
}
is_free() { ! grep '^VmFlags:.* uw' "/proc/$vm/smaps"; }

# shellcheck disable=SC2086
t "an unbroken run" 0 minivmm --memory memfd $guest
cp "$out" full

# Many images of one run.
start --memory memfd --delay 40
n=0
while [ $n -lt 4 ]; do
    n=$((n + 1))
    t "saved while it works: $n" 0 gmem-snap --handoff control.sock --pause-less \
        -o "vm$n.gmem" --chunk-size $((4 << n))K
done
check "its writes were noticed" grep -q 'paused for' "$out"
# And one that is killed in the middle, each time somewhere else.
for ms in 5 10 15 20; do
    gmem-snap -q --handoff control.sock --pause-less -o killed.gmem -f &
    victim=$!
    sleep "$(printf '0.%03d' $ms)"
    kill -KILL $victim 2>/dev/null
    wait $victim 2>/dev/null
    check "killed after $ms ms: nothing is protected" await is_free
done
wait "$vm"
check "it has come to its end" test $? -eq 0
check "which is the same" cmp half full
for k in 1 2 3 4; do
    t "restored: $k" 0 timeout -k 5 "$patience" gmem-restore "vm$k.gmem" -- \
        minivmm --memory memfd --restore '{state}'
    tail -n "$(wc -l <"$out")" full >rest
    check "goes on as the unbroken one: $k" cmp "$out" rest
done

# An image of an image that goes on.
rm -f control.sock
gmem-restore --no-background vm1.gmem -- minivmm --memory memfd --restore '{state}' \
    --control control.sock >half 2>half.err &
vm=$!
check "a restored one listens" await test -S control.sock
t "while it is being restored" 5 gmem-snap --handoff control.sock --pause-less -o again.gmem
check "is told to wait" grep -q 'still being restored' "$err"
kill "$vm"
wait "$vm" 2>/dev/null

# Memory that cannot be protected.
for kind in "--memory guest_memfd" "--slot gmem"; do
    rm -f control.sock
    # shellcheck disable=SC2086
    minivmm $guest $kind --delay 1000 --control control.sock >half 2>half.err &
    vm=$!
    if await test -S control.sock; then
        gmem-snap --handoff control.sock --pause-less -o no.gmem >"$out" 2>"$err"
        check "$kind: is refused" test $? -ne 0
        check "$kind: with the reason" grep -Eq 'past the mapping|cannot write-protect' "$err"
        check "$kind: and not paused" lacks 'the VM [ri]' "$err"
    else
        skip "$kind" "$(cat half.err)"
    fi
    kill "$vm" 2>/dev/null
    wait "$vm" 2>/dev/null
done
check "nothing is left running" none_left
done_testing

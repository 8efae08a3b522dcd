#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# examples/minivmm is saved while it works and goes on from the image, with the result of a
# run that was never broken: memfd and guest_memfd, plain slots and slots of guest_memfd, in
# every way that this kernel has.  GMEM_TEST_LAZY=1: its guest_memfd has to be served lazily.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
[ -w /dev/kvm ] || skip_all "no usable /dev/kvm"
needs_userfaultfd

size="--size 16"
work="--rounds ${GMEM_TEST_ROUNDS:-60} --writes 200 --free 7"
cd "$tmp" || exit 99

# Starts a minivmm that is to be saved, and waits until it has done something.
start() { # OPTION...
    rm -f control.sock half
    : >half
    # shellcheck disable=SC2086
    minivmm $size $work --delay "${GMEM_TEST_DELAY:-50}" --control control.sock "$@" >half 2>half.err &
    vm=$!
    await worked half 4
}
worked() { [ "$(wc -l <"$1")" -ge "$2" ]; }
kill_vm() {
    kill -9 "$vm" 2>/dev/null
    wait "$vm" 2>/dev/null
}
same_end() { [ "$(tail -n 1 "$1")" = "$(tail -n 1 full)" ]; }
# The lines of the second go on where those of the first have ended.
continues() {
    first=$(tail -n 1 "$1" | awk '{ print $2 }')
    next=$(head -n 1 "$2" | awk '{ print $2 }')
    [ "$next" -eq "$first" ] || [ "$next" -eq $((first + 1)) ]
}

# shellcheck disable=SC2086
t "an unbroken run" 0 minivmm --memory memfd $size $work
cp "$out" full

save() { # NAME KIND OPTION...
    name=$1 kind=$2
    shift 2
    start --memory "$kind" "$@"
    rm -f vm.gmem
    t "$name: saved while it works" 0 gmem-snap --handoff control.sock -o vm.gmem
    kill_vm
}
restore() { # NAME OPTIONS KIND MINIVMM-OPTION...
    name=$1 options=$2 kind=$3
    shift 3
    # shellcheck disable=SC2086
    t "$name" 0 timeout -k 5 "$patience" gmem-restore $options vm.gmem -- \
        minivmm --memory "$kind" --restore '{state}' "$@"
    cp "$out" rest
    check "$name: the lines go on" continues half rest
    check "$name: the end is the same" same_end rest
}

save memfd memfd
restore "memfd to memfd" "" memfd
restore "memfd to memfd, without background" --no-background memfd
restore "memfd to memfd, through a mapping" "--engine map-continue --no-background" memfd
restore "memfd to memfd, eagerly" --eager memfd
restore "memfd to memfd, by an inherited descriptor" "--handoff-fd --no-background" memfd
t "another size" 2 gmem-restore vm.gmem -- minivmm --memory memfd --size 32 --restore '{state}'
check "is refused" grep -q 'leave out --size' "$err"

# ---- guest_memfd ----

if minivmm --memory guest_memfd --size 4 --rounds 1 >/dev/null 2>probe; then
    guest_memfd=yes
else
    guest_memfd=no
fi
lazy=no
if [ $guest_memfd = yes ]; then
    restore "memfd to guest_memfd" -v guest_memfd
    if grep -q 'engine continue' "$err"; then
        lazy=yes
    else
        check "why not lazily" grep -q "does not work on this kernel's guest_memfd" "$err"
        t "lazily or not at all" 5 gmem-restore --engine continue vm.gmem -- \
            minivmm --memory guest_memfd --restore '{state}'
        check "is refused with what works" grep -q -- '--engine eager works' "$err"
    fi
    save guest_memfd guest_memfd
    check "its memory has a name" sh -c "gmem-inspect info vm.gmem | grep -q 'ram  *guest_memfd'"
    check "and the image is whole" gmem-inspect verify -q vm.gmem
    restore "guest_memfd to guest_memfd" "" guest_memfd
    restore "guest_memfd to memfd" --no-background memfd
    restore "guest_memfd to guest_memfd, eagerly" --eager guest_memfd
else
    skip "guest_memfd" "$(cat probe)"
fi
[ -z "$GMEM_TEST_LAZY" ] || check "this kernel's guest_memfd is served lazily" test $lazy = yes
if [ $lazy = yes ]; then
    restore "guest_memfd without background" --no-background guest_memfd
    restore "guest_memfd through a mapping" "--engine map-continue --no-background" guest_memfd
fi

# ---- slots that vCPUs reach past the mapping ----

if [ $guest_memfd = yes ] &&
    minivmm --slot gmem --size 4 --rounds 1 >/dev/null 2>probe; then
    restore "plain slot to slot of guest_memfd" --no-background guest_memfd --slot gmem
    save "slot of guest_memfd" guest_memfd --slot gmem
    restore "slot of guest_memfd" "" guest_memfd --slot gmem
    restore "slot of guest_memfd to memfd" --no-background memfd
    restore "slot of guest_memfd, eagerly" --eager guest_memfd --slot gmem
else
    skip "slots of guest_memfd" "not with this KVM: $(tail -n 1 probe 2>/dev/null)"
fi

# ---- memory that is not in the kernel's direct map ----

if minivmm --slot gmem --no-direct-map --size 4 --rounds 1 >/dev/null 2>probe; then
    save "no direct map" guest_memfd --slot gmem --no-direct-map
    restore "no direct map" --no-background guest_memfd --slot gmem --no-direct-map
    restore "no direct map, through a mapping" "--eager" guest_memfd --slot gmem --no-direct-map
    restore "no direct map to memfd" "" memfd
    start --memory guest_memfd --slot gmem --no-direct-map
    t "no direct map: saved from outside" 0 gmem-snap --pid "$vm" -o outside.gmem
    check "the memory is there" sh -c "gmem-inspect info outside.gmem | grep -q guest_memfd"
    kill_vm
else
    skip "no direct map" "this kernel's guest_memfd stays in it: $(tail -n 1 probe)"
fi

# ---- on and on ----

kind=memfd
[ $guest_memfd = no ] || kind=guest_memfd
start --memory $kind
t "saved" 0 gmem-snap --handoff control.sock -o vm.gmem --force
kill_vm
cp half all
i=0
while [ $i -lt 3 ]; do
    i=$((i + 1))
    rm -f control.sock
    : >half
    gmem-restore vm.gmem -- minivmm --memory "$kind" --restore '{state}' --control control.sock \
        >half 2>half.err &
    vm=$!
    await worked half 4
    check "restored ($i), saved again" \
        await gmem-snap --handoff control.sock -o vm.gmem --force -q
    kill -TERM "$vm" 2>/dev/null
    wait "$vm" 2>/dev/null
    check "it ends by SIGTERM" test $? -eq 143
done
restore "at last" "" $kind

# A VM that is still being restored has holes that are no zeros.
: >half
gmem-restore --no-background vm.gmem -- minivmm --memory memfd --restore '{state}' \
    --control control2.sock >half 2>half.err &
vm=$!
await test -S control2.sock
await worked half 1
t "a VM that is still being restored" 5 gmem-snap --handoff control2.sock -o new.gmem
check "is refused by that name" grep -q 'still being restored' "$err"
check "there is no image" test ! -e new.gmem
check "and it goes on" await worked half 6
kill -9 "$vm"
wait "$vm" 2>/dev/null
check "kill -9 of gmem-restore ends it" await none_left

# ---- killed at any moment ----

save "for kills" "$kind"
wrong=0 i=0
while [ $i -lt "${GMEM_TEST_KILLS:-15}" ]; do
    i=$((i + 1))
    gmem-restore vm.gmem -- minivmm --memory "$kind" --restore '{state}' >rest 2>rest.err &
    vm=$!
    sleep "0.0$((i * 7 % 10))$((i * 3 % 10))"
    kill -9 "$vm" 2>/dev/null
    wait "$vm" 2>/dev/null
    await none_left || wrong=$((wrong + 1))
    # Every line that was printed is one of the unbroken run.
    ! grep -vxFf full rest | grep -v '^ *$' | head -n 1 | grep . || wrong=$((wrong + 1))
done
check "kill -9 of gmem-restore, $i times: no wrong line, nobody left" test $wrong -eq 0
check "nothing is left running" none_left
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A VMM that brings its own memory: every byte, every engine, and clients that lie.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd

# ---- memory of the VMM's own ----

kinds=memfd
if [ -n "$GMEM_TEST_OWN" ]; then
    kinds=$GMEM_TEST_OWN
fi
base="--vmm handoff"
mib=${GMEM_TEST_MIB:-32}

try() {
    name=$1
    shift
    for more in "" --no-background "--engine map-continue" --handoff-fd; do
        options="$base $more"
        # shellcheck disable=SC2086
        vmm "$kind: $name${more:+, $more}" 0 $mem "$@"
    done
}
for kind in $kinds; do
    image small 32768 "ram=memfd,$mib,12,2"
    mem="own=$kind,$mib pattern=2,12"
    try "4 threads read" map touch=4
    try "4 threads write" map write=4 verify
    try "mapped twice" twice write=4 verify
    try "mapped in two pieces" pieces write=4 verify
    try "split into many VMAs" map split write=4 verify
    try "the kernel reads and writes it" map syscalls verify
    try "MADV_DONTNEED keeps it" map dontneed write=2 dontneed verify
    try "unmapped, mapped again" map touch=2 unmap map touch=2 unmap map verify
    try "a part unmapped" map middle write=2 verify
    try "a part covered by another file" map cover touch=2
    try "a child does not see it" map fork-read touch=2 fork-read
    for options in "$base" "$base --no-background"; do
        # shellcheck disable=SC2086
        vmm "$kind: a child takes part" 0 $mem map touch=1 fork join map write=2 verify
    done
    for how in remove punch; do
        try "$how before it is there" map "discard=$how,3" touch=4
        try "$how of all" map "discard=$how,1" touch=2
        try "$how after it is there" map touch=2 "discard=$how,3" touch=2
        try "$how while it is touched" map "race=$how,3,4" verify
    done
    image empty 32768 ram=memfd,16,0,6
    mem="own=$kind,16 pattern=6,0"
    try "all zeros" map touch=2
    options="$base --engine eager"
    vmm "$kind: eagerly" 0 "own=$kind,16" pattern=6,0 map touch=2
    image=$tmp/small.gmem
    options="$base --no-background"
    vmm "$kind: another process maps it" 1 "own=$kind,$mib" pattern=2,12 map child-map \
        sleep=9000 touch=1
    check "it is found" grep -q 'has not handed it over' "$err"
    vmm "$kind: a mapping that is not handed over" 1 "own=$kind,$mib" pattern=2,12 raw-map \
        sleep=9000 touch=1
    check "it is found too" grep -q 'has not handed it over' "$err"
done

image small 32768 ram=memfd,32,12,2
mem='pattern=2,12'
options="$base -v"
# shellcheck disable=SC2086
vmm "vCPUs past the mapping: all is filled before" 0 own=memfd,32,slots $mem map touch=2
check "which is said" grep -q 'past any mapping.*so all of it is filled' "$err"
# shellcheck disable=SC2086
options="$base --engine continue"
# shellcheck disable=SC2086
vmm "vCPUs past the mapping, lazily: refused" 5 own=memfd,32,slots $mem map touch=2
check "with what works" grep -q 'engine continue: .*--engine eager works' "$err"
options="$base --engine userfault"
# shellcheck disable=SC2086
vmm "KVM userfault without a bitmap: refused" 5 own=memfd,32 $mem map touch=2
check "with what fits" grep -q 'engine userfault does not fit this memory, continue does' "$err"
options="$base --no-background"
# shellcheck disable=SC2086
vmm "memory that is too small" 1 own=memfd,31 $mem map touch=2
check "is refused with its size" grep -q '32505856 bytes .* 33554432 bytes' "$err"
t "the image's own kind of VMM: {mem} is needed" 2 gmem-restore "$image" -- true
check "or the hand-off" grep -q -- '--vmm handoff' "$err"
options="--stats $tmp/stats.json $base"
# shellcheck disable=SC2086
vmm "statistics" 0 own=memfd,32 $mem map touch=2
check "name the engine" grep -q '"engine": "continue"' "$tmp/stats.json"

# ---- a VMM that does not hand over ----

options="$base --handoff-timeout 1"
t "nothing is handed over" 1 gmem-restore --vmm handoff --handoff-timeout 1 "$image" -- sleep 20
check "is said with the limit" grep -q 'sleep has not handed over its memory within 1 s' "$err"
t "ends without" 3 gmem-restore --vmm handoff "$image" -- sh -c 'exit 3'
check "is said too" grep -q 'without having handed over' "$err"

# ---- clients that lie ----

size=33554432
lie() { # NAME PATTERN WORD...
    name=$1 pattern=$2
    shift 2
    t "$name: the VMM is stopped" 1 timeout -k 5 30 \
        gmem-restore --vmm handoff --no-background "$image" -- handoff-liar "$@" sleep=20000
    check "$name: why" grep -q -- "$pattern" "$err"
}
corrupt() { # the same, with status 3: the message is damaged
    name=$1 pattern=$2
    shift 2
    t "$name: the VMM is stopped" 3 timeout -k 5 30 \
        gmem-restore --vmm handoff --no-background "$image" -- handoff-liar "$@" sleep=20000
    check "$name: why" grep -q -- "$pattern" "$err"
}
t "the client of the header" 0 gmem-restore --vmm handoff "$image" -- \
    handoff-liar hello memory=$size uffd "map=0,$size,-1" discard=0 unmap
check "has nothing to complain about" test ! -s "$out"
lie "a flood of mappings" "in more than 4096 mappings can't be served" hello memory=$size uffd \
    maps=5000
lie "a flood of other mappings" 'mapped and unmapped too often' hello memory=$size uffd \
    remaps=1000000
t "as many mappings as may be" 0 gmem-restore --vmm handoff --no-background "$image" -- \
    handoff-liar hello memory=$size uffd maps=4096
t "memory that begins later in its file" 0 gmem-restore --vmm handoff "$image" -- \
    handoff-liar hello memory=$((size + 8192))@8192 uffd
check "neither" test ! -s "$out"
lie "touched memory" '1 pages of this memory are there already' touched hello memory=$size
lie "an offset that is no page" 'do not hold a region' hello memory=$size@512
lie "an offset beyond" 'do not hold a region' hello memory=$size@4096
lie "a pipe" 'is no memory object' hello pipe
lie "a bitmap that is too small" 'has to be a file of 1024 bytes' bitmap=1016 hello memory=$size
corrupt "no descriptor" 'no descriptor of memory 0' hello nothing
corrupt "a region that is not there" 'unwanted memory 1' hello region=1 memory=$size
corrupt "memory twice" 'came twice' hello memory=$size memory=$size
corrupt "userfaultfd before the memory" 'before the memory of all' hello uffd
corrupt "two userfaultfds" 'another userfaultfd' hello memory=$size uffd uffd
corrupt "a mapping without userfaultfd" 'sent no userfaultfd' hello memory=$size "map=0,$size,-1"
corrupt "a mapping beyond the end" 'do not fit' hello memory=$size uffd "map=4096,$size,-1"
corrupt "a fault beyond the end" 'no page at' hello memory=$size "fault=$size"
corrupt "another version" 'version 99' hello version
corrupt "a short message" 'message of 7 bytes' hello short
corrupt "a long message" 'message of ' hello long
corrupt "a text without an end" "message of 256 bytes" hello text
corrupt "an unknown request" 'request 77 is not known' hello type=77
corrupt "hello twice" 'hello twice' hello type=1
corrupt "a reply as a request" 'request 129 is not known' hello type=129
lie "leaves with the memory" 'has left the hand-off' hello half
t "an ordinary fault without userfault is no error" 0 gmem-restore --vmm handoff "$image" -- \
    handoff-liar hello memory=$size fault=0

# What is not wrong at all.
fine() { # NAME OPTIONS WORD...: the VMM ends by itself
    name=$1 options=$2
    shift 2
    # shellcheck disable=SC2086
    t "$name" 7 timeout -k 5 30 gmem-restore --vmm handoff $options "$image" -- \
        handoff-liar "$@" exit=7
    check "$name: nothing is said" test ! -s "$err" -a ! -s "$out"
}
fine "a second conversation that is closed" "" hello memory=$size uffd "map=0,$size,-1" \
    second sleep=1500
fine "leaving when all is there" "" hello memory=$size uffd "map=0,$size,-1" sleep=1000 \
    close sleep=7000
fine "a file that is larger than its region" --no-background hello whole=8192 sleep=4000
fine "a mapping that comes late" --no-background hello memory=$size uffd sleep=2500 \
    "map=0,$size,-1"
fine "a userfaultfd that does not block" "" hello memory=$size nonblock "map=0,$size,-1"
image big 65536 "ram=memfd,$((mib * 32)),30,2"
fine "a fill that takes longer than the hand-off may" "--engine eager --handoff-timeout 1 --threads 1" \
    hello memory=$((mib * 32 * 1048576))
image=$tmp/small.gmem

echo "some bytes" >"$tmp/disk"
truncate -s $size "$tmp/disk"
case $(stat -f -c %T "$tmp") in
    tmpfs | ramfs) skip "a file on a disk" "there is no disk below $tmp" ;;
    *) lie "a file on a disk" 'is no memory object' hello "file=$tmp/disk" ;;
esac
corrupt "ten descriptors" 'more than 2 descriptors' hello memory=$size descriptors=10
t "an error when all is there ends the VM too" 3 timeout -k 5 30 \
    gmem-restore --vmm handoff "$image" -- handoff-liar hello memory=$size uffd sleep=1500 \
    type=77 sleep=20000
image two 32768 one=memfd,8,12,3 two=memfd,8,12,3
lie "the same bytes for two regions" 'two: lies in the memory of one\|two: .* are there already' hello memory=16777216 \
    region=1 again=4096
t "an inherited hand-off and {mem}" 2 gmem-restore --vmm handoff --handoff-fd "$image" -- \
    true '{mem:one}'
check "do not go together" grep -q -- '--handoff-fd does not go with {mem}' "$err"

# Huge pages.
free=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 0)
if [ "$free" -ge 16 ]; then
    image huge 32768 ram=hugetlb,32,12,7
    for options in "$base" "$base --no-background" "$base --engine eager"; do
        for words in "map touch=4" "twice write=4 verify" "map discard=punch,3 touch=2" \
            "map touch=2 discard=punch,3 touch=2"; do
            # shellcheck disable=SC2086
            vmm "huge pages, $options: $words" 0 own=hugetlb,32 pattern=7,12 $words
        done
    done
else
    skip "huge pages" "16 free ones of 2 MiB are needed, there are $free"
fi

check "nothing is left running" none_left
done_testing

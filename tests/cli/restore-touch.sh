#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Every byte of lazily restored memory is right, however it is mapped and used.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd

# Several threads in random order while the background fills; more with GMEM_TEST_BIG=1,
# less with GMEM_TEST_MIB=256.
mib=${GMEM_TEST_MIB:-2048}
[ -z "$GMEM_TEST_BIG" ] || mib=16384
image big 65536 "ram=memfd,$mib,10,1"
mem='open={mem} pattern=1,10'
patience=300
# shellcheck disable=SC2086
vmm "4 threads read, $mib MiB, with background" 0 $mem map touch=4
image written 65536 ram=memfd,256,20,1
# shellcheck disable=SC2086
vmm "4 threads write, then all is compared" 0 open='{mem}' pattern=1,20 map write=4 verify
patience=${GMEM_TEST_PATIENCE:-240}

mem='open={mem} pattern=2,12'
for chunk in 4096 16384 65536 2097152; do
    image "chunk$chunk" "$chunk" ram=memfd,32,12,2
    for options in "" --no-background --eager; do
        # shellcheck disable=SC2086
        vmm "chunks of $chunk ${options:---background}: read" 0 $mem map touch=4
        # shellcheck disable=SC2086
        vmm "chunks of $chunk ${options:---background}: write" 0 $mem map write=4 verify
    done
done

try() {
    name=$1
    shift
    for options in "" --no-background; do
        # shellcheck disable=SC2086
        vmm "$name${options:+, $options}" 0 $mem "$@"
    done
}
image small 32768 ram=memfd,32,12,2
try "mapped twice" twice touch=4
try "mapped twice, written" twice write=4 verify
try "mapped in two pieces" pieces write=4 verify
try "split into many VMAs" map split write=4 verify
try "split, mapped twice" twice split write=4 verify
try "MAP_POPULATE" populate map touch=2
try "mlockall before it is mapped" mlockall map touch=2
try "the kernel reads and writes it" map syscalls verify
try "MADV_DONTNEED keeps it" map dontneed write=2 dontneed verify
try "unmapped, mapped again" map touch=2 unmap map touch=2 unmap map verify
try "written, unmapped, mapped again" map write=2 unmap map verify
try "a part unmapped" map middle write=2 verify
try "a part covered by another file" map cover touch=2
try "a part covered, after all was touched" map write=2 cover verify
try "calls that fail change nothing" map failures touch=2
try "mremap is refused" map mremap touch=2
try "a child does not see it" map fork-read touch=2 fork-read
try "mapped in a child" fork map touch=2
try "mapped, then mapped again in a child" map touch=1 fork open='{mem}' map touch=1
try "mapped after exec" exec open='{mem}' pattern=2,12 map touch=2
try "mapped before and after exec" map write=1 exec open='{mem}' pattern=2,12 map exit=0
for how in remove punch; do
    try "$how before it is there" map "discard=$how,3" touch=4
    try "$how of all" map "discard=$how,1" touch=2
    try "$how after it is there" map touch=2 "discard=$how,3" touch=2
    try "$how while it is touched" map "race=$how,3,4" verify
    try "$how, mapped again" map "discard=$how,5" unmap map touch=2
done
try "madvise rounds up" map part=remove verify

image several 32768 a=memfd,8,12,3 b=memfd,24,12,4 c=memfd,4,32,5
for options in "" --no-background --eager; do
    vmm "three regions ${options}" 0 \
        open='{mem:a}' pattern=3,12 map touch=2 \
        open='{mem:c}' pattern=5,32 map touch=2 \
        open='{mem:b}' pattern=4,12 map write=2 verify
done

image empty 32768 ram=memfd,16,0,6
options=
vmm "all zeros" 0 open='{mem}' pattern=6,0 map touch=2

free=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 0)
if [ "$free" -ge 16 ]; then
    image huge 32768 ram=hugetlb,32,12,7
    mem='open={mem} pattern=7,12'
    try "huge pages" map touch=4
    try "huge pages, written" twice write=4 verify
    try "huge pages, the kernel" map syscalls verify
    try "huge pages, fork" map fork-read touch=2
    for how in remove punch; do
        try "huge pages, $how before they are there" map "discard=$how,3" touch=2 verify
        try "huge pages, $how after they are there" map touch=2 "discard=$how,3" touch=2
    done
    options=--eager
    # shellcheck disable=SC2086
    vmm "huge pages, eagerly" 0 $mem map touch=2
else
    skip "huge pages" "16 free ones of 2 MiB are needed, there are $free"
fi

check "nothing is left running" none_left
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --diff: diff snapshots over a memory file.  What is expected is put together by dd,
# page by page, without a look at holes.
[ ! -w /dev/shm ] || : "${TMPDIR:=/dev/shm}"
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

page() { # FILE NUMBER: a page of noise there
    head -c 4096 /dev/urandom | dd of="$1" bs=4096 seek="$2" conv=notrunc 2>/dev/null
}
over() { # FILE NUMBER FROM: that page of another file
    dd if="$3" of="$1" bs=4096 seek="$2" skip="$2" count=1 conv=notrunc 2>/dev/null
}
same() { # NAME WANTED OPTION...
    name=$1 want=$2
    shift 2
    t "$name" 0 gmem-snap -f -o "$tmp/i" "$@"
    rm -f "$tmp/o"
    gmem-inspect extract "$tmp/i" -o "$tmp/o" 2>/dev/null
    check "$name: equal" cmp "$tmp/o" "$want"
}

# A base with a hole, and three diffs: over data, over the hole, over each other, and zeros.
truncate -s 4M "$tmp/base" "$tmp/d1" "$tmp/d2" "$tmp/d3"
head -c 2M /dev/urandom | dd of="$tmp/base" conv=notrunc 2>/dev/null
for n in 0 1 2 100 511 512 513 1023; do page "$tmp/d1" $n; done
for n in 1 3 100 700; do page "$tmp/d2" $n; done
dd if=/dev/zero of="$tmp/d2" bs=4096 seek=512 count=1 conv=notrunc 2>/dev/null
dd if=/dev/zero of="$tmp/d3" bs=4096 seek=5 count=2 conv=notrunc 2>/dev/null

cp "$tmp/base" "$tmp/w1"
for n in 0 1 2 100 511 512 513 1023; do over "$tmp/w1" $n "$tmp/d1"; done
cp "$tmp/w1" "$tmp/w2"
for n in 1 3 100 512 700; do over "$tmp/w2" $n "$tmp/d2"; done
cp "$tmp/w2" "$tmp/w3"
for n in 5 6; do over "$tmp/w3" $n "$tmp/d3"; done

same "one diff" "$tmp/w1" --file "$tmp/base" --diff "$tmp/d1"
check "no warnings" lines 0 "$err"
same "two" "$tmp/w2" --file "$tmp/base" --diff "$tmp/d1" --diff "$tmp/d2"
same "three, the last of zeros" "$tmp/w3" --file "$tmp/base" --diff "$tmp/d1" \
    --diff "$tmp/d2" --diff "$tmp/d3"
for size in 4K 2M; do
    same "chunks of $size, 8 threads" "$tmp/w3" --file "$tmp/base" --diff "$tmp/d1" \
        --diff "$tmp/d2" --diff "$tmp/d3" --chunk-size $size --threads 8
done
truncate -s 4M "$tmp/nothing"
same "one without any data" "$tmp/base" --file "$tmp/base" --diff "$tmp/nothing"
same "over nothing but a hole" "$tmp/d1" --file "$tmp/nothing" --diff "$tmp/d1"
gmem-snap -q -f --file "$tmp/w3" -o "$tmp/j"
gmem-snap -q -f --file "ram=$tmp/base" --diff "$tmp/d1" --diff "$tmp/d2" --diff "$tmp/d3" \
    -o "$tmp/i"
gmem-snap -q -f --file "ram=$tmp/w3" -o "$tmp/j"
check "the same image as of what they make" cmp "$tmp/i" "$tmp/j"

# Each belongs to the --file before it.
t "two files with diffs" 0 gmem-snap -f -o "$tmp/i" --file "a=$tmp/base" --diff "$tmp/d1" \
    --file "b=$tmp/base" --diff "$tmp/d3"
rm -f "$tmp/o"
gmem-inspect extract "$tmp/i" --region a -o "$tmp/o" 2>/dev/null
check "the first" cmp "$tmp/o" "$tmp/w1"
cp "$tmp/base" "$tmp/w"
for n in 5 6; do over "$tmp/w" $n "$tmp/d3"; done
rm -f "$tmp/o"
gmem-inspect extract "$tmp/i" --region b -o "$tmp/o" 2>/dev/null
check "the second" cmp "$tmp/o" "$tmp/w"

# Data that does not fill a page, at both ends of one.
truncate -s 1M "$tmp/odd" "$tmp/odd-base"
head -c 1M /dev/urandom >"$tmp/odd-base"
printf 'x%.0s' 1 2 3 | dd of="$tmp/odd" bs=1 seek=8190 conv=notrunc 2>/dev/null
cp "$tmp/odd-base" "$tmp/w"
over "$tmp/w" 1 "$tmp/odd"
over "$tmp/w" 2 "$tmp/odd"
same "a few bytes replace their blocks" "$tmp/w" --file "$tmp/odd-base" --diff "$tmp/odd"
# Not a multiple of a page, as little as the base.
head -c 10000 /dev/urandom >"$tmp/base-short"
truncate -s 10000 "$tmp/diff-short"
page "$tmp/diff-short" 1
cp "$tmp/base-short" "$tmp/w"
over "$tmp/w" 1 "$tmp/diff-short"
truncate -s 10000 "$tmp/w"
same "a length between pages" "$tmp/w" --file "$tmp/base-short" --diff "$tmp/diff-short"

# As the memory of a large VM is: offsets beyond 32 bits.
truncate -s 4353M "$tmp/large" "$tmp/large-1" "$tmp/large-2"
page "$tmp/large" 786432
page "$tmp/large" 1048577
page "$tmp/large-1" 1048577
page "$tmp/large-1" 1114367
page "$tmp/large-2" 1114367
t "4353 MiB" 0 gmem-snap -f -o "$tmp/i" --file "$tmp/large" --diff "$tmp/large-1" \
    --diff "$tmp/large-2"
rm -f "$tmp/o"
gmem-inspect extract "$tmp/i" -o "$tmp/o" 2>/dev/null
for pair in 786432:large 1048577:large-1 1114367:large-2; do
    n=${pair%:*}
    dd if="$tmp/o" bs=4096 skip="$n" count=1 of="$tmp/p1" 2>/dev/null
    dd if="$tmp/${pair#*:}" bs=4096 skip="$n" count=1 of="$tmp/p2" 2>/dev/null
    check "page $n" cmp "$tmp/p1" "$tmp/p2"
done
check "and no more than that" test "$(du -k "$tmp/o" | cut -f 1)" -le 64
rm -f "$tmp"/large* "$tmp/o"

# Where a small write makes a huge page of data.
mkdir "$tmp/huge"
on_huge() { # COMMAND, a text: with a tmpfs of huge pages there
    unshare -m sh -c "mount -t tmpfs -o huge=always,size=16M none '$tmp/huge' && $1"
}
block=$(on_huge "true >'$tmp/huge/f' && stat -c %o '$tmp/huge/f'" 2>/dev/null)
if [ "${block:-0}" -gt 65536 ]; then
    t "a diff on a tmpfs of huge pages" 5 on_huge "cp --sparse=always '$tmp/d1' '$tmp/huge/d' &&
        exec gmem-snap -f -o '$tmp/i' --file '$tmp/base' --diff '$tmp/huge/d'"
    check "says so" grep -q 'its tmpfs takes huge pages' "$err"
else
    skip "a diff on a tmpfs of huge pages" "needs root, and a kernel with them"
fi

# What is none.
t "one that is shorter" 1 gmem-snap -f -o "$tmp/i" --file "$tmp/base" --diff "$tmp/odd"
check "says both lengths" grep -q 'odd: it has 1048576 bytes, .* has 4194304' "$err"
t "one that is not there" 1 gmem-snap -f -o "$tmp/i" --file "$tmp/base" --diff "$tmp/none"
mkfifo "$tmp/fifo"
t "a pipe" 1 gmem-snap -f -o "$tmp/i" --file "$tmp/base" --diff "$tmp/fifo"
cp --sparse=never "$tmp/d1" "$tmp/full"
t "one without holes" 0 gmem-snap -f -o "$tmp/i" --file "$tmp/base" --diff "$tmp/full"
check "is warned of" grep -q 'full: has no holes' "$err"
t "no base before it" 2 gmem-snap -o "$tmp/k" --diff "$tmp/d1" --file "$tmp/base"
t "no base at all" 2 gmem-snap -o "$tmp/k" --pid $$ --diff "$tmp/d1"

done_testing

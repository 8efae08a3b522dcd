#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# extract: the memory that went in, sparse, and nothing left of what failed.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

for chunk in 4096 32768 2097152; do
    make-image "$tmp/a.gmem" 9 5 $chunk $chunk || exit 99
    for n in 1 5; do
        rm -f "$tmp/a.out"
        t "chunks of $chunk, $n threads" 0 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/a.out" --threads $n
        check "equal" cmp "$tmp/a.out" "$tmp/a.gmem.raw"
    done
    check "sparse" test "$(du -k "$tmp/a.out" | cut -f 1)" -lt "$(du -k "$tmp/a.gmem.raw" | cut -f 1)"
done
check "nothing on stderr" test ! -s "$err"
check "nobody else may read it" test -n "$(find "$tmp/a.out" -perm 600)"

make-image "$tmp/zero.gmem" 3 0 32768 1 || exit 99
t "nothing but zeros" 0 gmem-inspect extract "$tmp/zero.gmem" -o "$tmp/zero"
check "equal" cmp "$tmp/zero" "$tmp/zero.gmem.raw"
check "takes no room" test "$(du -k "$tmp/zero" | cut -f 1)" -eq 0

t "to standard output" 0 gmem-inspect extract "$tmp/a.gmem" -o -
check "equal" cmp "$out" "$tmp/a.gmem.raw"
t "one region" 0 gmem-inspect extract --region ram "$tmp/a.gmem" -o -
check "equal" cmp "$out" "$tmp/a.gmem.raw"
t "a state" 0 gmem-inspect extract --state device "$tmp/a.gmem" -o -
printf 'device state of nothing in particular\0' >"$tmp/want"
check "equal" cmp "$out" "$tmp/want"
t "no such state" 1 gmem-inspect extract --state nothing "$tmp/a.gmem" -o "$tmp/none"
check "leaves no file" test ! -e "$tmp/none"

echo mine >"$tmp/mine"
t "an existing file is kept" 1 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/mine"
check "as it was" grep -qx mine "$tmp/mine"
t "--force replaces it" 0 gmem-inspect extract --force "$tmp/a.gmem" -o "$tmp/mine"
check "whole" cmp "$tmp/mine" "$tmp/a.gmem.raw"
t "--json" 0 gmem-inspect extract --json --force "$tmp/a.gmem" -o "$tmp/mine"
check "tells the size" grep -q "\"size\": $((9 << 20))" "$out"

# A byte inside a record: found when that chunk is decoded.
cp "$tmp/a.gmem" "$tmp/bad.gmem"
printf '\377\377\377\377\377\377\377\377' |
    dd of="$tmp/bad.gmem" bs=1 seek=200000 conv=notrunc 2>/dev/null
mkdir "$tmp/empty"
t "a damaged image" 3 gmem-inspect extract "$tmp/bad.gmem" -o "$tmp/empty/out"
check "leaves nothing" test -z "$(ls -A "$tmp/empty")"
cp "$tmp/mine" "$tmp/empty/out"
t "nor does it replace a file" 3 gmem-inspect extract --force "$tmp/bad.gmem" -o "$tmp/empty/out"
check "which is as it was" cmp "$tmp/empty/out" "$tmp/a.gmem.raw"
t "no such folder" 1 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/nowhere/out"
t "a folder" 1 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/empty"

mkdir "$tmp/mnt"
if mount -t tmpfs -o size=1m none "$tmp/mnt" 2>/dev/null; then
    t "a full disk" 1 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/mnt/out"
    check "leaves nothing" test -z "$(ls -A "$tmp/mnt")"
    check "and is named" grep -q 'mnt/out.*No space left' "$err"
else
    skip "a full disk" "may not mount"
fi
done_testing

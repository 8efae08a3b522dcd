#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# cat: the guest's bytes, by guest physical address and by offset.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
make-image "$tmp/a.gmem" 4 12 32768 3 || exit 99
raw=$tmp/a.gmem.raw
low=$((0x201000)) # bytes in the first segment; the second begins at 4 GiB

part() { # OFFSET LENGTH
    tail -c +$(($1 + 1)) "$raw" | head -c "$2"
}

same() { # NAME RANGE OFFSET LENGTH [OPTION...]
    same_name=$1 same_range=$2
    part "$3" "$4" >"$tmp/want"
    shift 4
    t "$same_name" 0 gmem-inspect cat --raw "$@" "$tmp/a.gmem" "$same_range"
    check "$same_name: equal" cmp "$out" "$tmp/want"
}
same "all of the first segment" "0-$low" 0 $low
same "all of the second" "4G+0x1ff000" $low $((0x1ff000))
same "an odd piece" 0x12345+777 $((0x12345)) 777
same "across chunks" 32K-0x18001 32768 $((0x10001))
same "the last bytes" 0x1001fefff+1 $((low + 0x1fefff)) 1
same "across the segments by offset" "$((low - 100))+200" $((low - 100)) 200 --region ram

if command -v hexdump >/dev/null; then
    part 0 200001 | hexdump -C >"$tmp/want"
    t "hex dump" 0 gmem-inspect cat "$tmp/a.gmem" 0+200001
    check "is that of hexdump -C" cmp "$out" "$tmp/want"
fi
t "256 bytes by default" 0 gmem-inspect cat "$tmp/a.gmem" 0x3000
check "end where they end" last 00003100 "$out"
t "high addresses" 0 gmem-inspect cat "$tmp/a.gmem" 4G+4
check "are written in full" grep -q '^000100000000  ' "$out"

t "a hole" 1 gmem-inspect cat "$tmp/a.gmem" 0x200000-0x300000
check "is named" grep -q 'no memory at 0x201000, next at 0x100000000' "$err"
check "and nothing printed" test ! -s "$out"
t "behind everything" 1 gmem-inspect cat "$tmp/a.gmem" 1T
t "behind the region" 1 gmem-inspect cat --region ram "$tmp/a.gmem" 4M
check "is told" grep -q 'ram ends at 0x400000' "$err"
t "no such region" 1 gmem-inspect cat --region rom "$tmp/a.gmem" 0
for bad in x 0x 1+ 1-1 2-1 +5 1+2+3 0+0 16X 0xffffffffffffffff+2 18446744073709551616 -- -1; do
    t "usage: '$bad'" 2 gmem-inspect cat "$tmp/a.gmem" "$bad"
done
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-inspect trace: what is in one, what two share, merging, and traces that lie.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
seeds=$abs_top_srcdir/tests/data/seeds/trace

t "a trace" 0 gmem-inspect trace "$seeds/plain"
check "its pages" grep -q '^touched    9 pages (36.0 KiB) in 5 runs, 44.4 % in sequence$' "$out"
check "how they were touched" grep -q '^by reading 4, by writing 5$' "$out"
check "when" grep -q 'until      10 % in 0 ms, 50 % in 4 ms, 90 % in 1000 ms' "$out"
check "how it ended" grep -q '^recorded   2.345 s, until: settled$' "$out"
check "by region" grep -Eq '^  ram  .* 6 +24.0 KiB +1.2 % +3 +3$' "$out"
check "and the other" grep -Eq '^  vga  .* 3 +12.0 KiB +12.0 % +1 +2$' "$out"
t "--list" 0 gmem-inspect trace --list "$seeds/plain"
check "each run" lines 6 "$out"
check "with all of it" grep -Eq '^ +4  read    ram +0x12c000 +2 +0x10002c000$' "$out"
check "without an address" grep -Eq '^ +1000  write   vga +0x0 +2 +-$' "$out"
t "a trace of nothing" 0 gmem-inspect trace "$seeds/nothing"
check "has none" grep -q '^touched    0 pages' "$out"
t "a trace with what moves the cursor" 0 gmem-inspect trace "$seeds/part"
check "is shown as it is" grep -q 'until: .x1b\[31mred' "$out"

t "two" 0 gmem-inspect trace "$seeds/plain" "$seeds/part"
check "what they share" grep -q 'common     5 pages' "$out"
check "jaccard" grep -q 'jaccard    55.6 %' "$out"
check "coverage" grep -q 'coverage   100.0 %' "$out"
check "precision" grep -q 'precision  55.6 %' "$out"
# Pages 7+…: 85, 86 of "low" are 101, 102 by address; 200-203 are 216-219; vga has a page 1.
t "of two guests" 0 gmem-inspect trace "$seeds/plain" "$seeds/other"
check "are compared by address, and by name" grep -q 'common     3 pages' "$out"

t "--merge union" 0 gmem-inspect trace --merge union -o "$tmp/u" "$seeds/plain" "$seeds/other"
gmem-inspect trace --list "$tmp/u" | awk '{ print $1, $2, $3, $4, $5 }' >"$tmp/list"
cat >"$tmp/want" <<END
MS ACCESS REGION OFFSET PAGES
0 read ram 0x7000 1
0 write ram 0x64000 1
0 both ram 0x65000 2
2 both vga 0x1000 1
3 read ram 0xd8000 4
4 read ram 0x12c000 2
1000 write vga 0x0 1
1000 read vga 0x18000 1
END
check "all pages of both, each with its first time" diff "$tmp/want" "$tmp/list"
check "for its owner" test "$(stat -c %a "$tmp/u")" = 600
check "in sequence over the ends of runs too" \
    sh -c "gmem-inspect trace '$tmp/u' | grep -q '13 pages .* in 8 runs, 46.2 % in sequence'"
check "says what it is" sh -c "gmem-inspect trace '$tmp/u' | grep -q 'until: merged'"
t "--merge intersection" 0 gmem-inspect trace --merge intersection -o "$tmp/i" \
    "$seeds/plain" "$seeds/other" "$seeds/plain"
gmem-inspect trace --list "$tmp/i" | awk '{ print $1, $2, $3, $4, $5 }' >"$tmp/list"
printf '%s\n' 'MS ACCESS REGION OFFSET PAGES' '0 both ram 0x65000 2' '2 both vga 0x1000 1' >"$tmp/want"
check "pages of all" diff "$tmp/want" "$tmp/list"
t "an existing file is kept" 1 gmem-inspect trace --merge union -o "$tmp/u" "$seeds/plain"
t "but with --force" 0 gmem-inspect trace --force --merge union -o "$tmp/u" "$seeds/plain"
t "one alone" 0 gmem-inspect trace --merge union -o - "$seeds/plain"
check "stays, but for its end and who wrote it" \
    sh -c "gmem-inspect trace --list '$out' >'$tmp/1' && gmem-inspect trace --list '$seeds/plain' | diff '$tmp/1' -"
t "twice the same" 0 gmem-inspect trace --merge union -o "$tmp/v" "$seeds/plain" "$seeds/plain"
check "is the same" cmp "$tmp/u" "$tmp/v"
t "pages without a place" 0 gmem-inspect trace --merge union -o "$tmp/w" "$seeds/other" "$seeds/plain"
check "are told" grep -q 'plain: 4 pages have no place in the guest of .*other' "$err"

make-image "$tmp/a.gmem" 4 6 32768 2 || exit 99
t "--image" 0 gmem-inspect trace --image "$tmp/a.gmem" "$seeds/plain"
check "what its pages are" grep -Eq 'in image   .*a.gmem: [0-9]+ pages .* stored, 0 of them hot; [0-9]+ zero, [0-9]+ without' "$out"

if command -v python3 >/dev/null; then
    t "--json" 0 gmem-inspect trace --json --image "$tmp/a.gmem" "$seeds/plain" "$seeds/part" "$seeds/other"
    check "has the same" python3 -c '
import json, sys
o = json.load(open(sys.argv[1]))
assert o["schema"] == 1
t = o["traces"][0]
assert (t["pages"], t["bytes"], t["runs"], t["end"]) == (9, 36864, 5, "settled"), t
assert (t["read_pages"], t["write_pages"], t["lost_pages"]) == (4, 5, 0)
assert t["times_ms"] == [[0, 4], [4, 6], [1000, 9]] and t["duration_ms"] == 2345
assert abs(t["sequential"] - 4 / 9) < 1e-9
assert [r["pages"] for r in t["regions"]] == [6, 3]
i = t["in_image"]
assert i["stored_pages"] + i["zero_pages"] + i["elsewhere_pages"] == 9
raw = open(sys.argv[2], "rb").read()
c, d = o["comparisons"]
assert c["common_pages"] == 5 and c["coverage"] == 1 and abs(c["precision"] - 5 / 9) < 1e-9
assert d["common_pages"] == 3 and abs(d["jaccard"] - 3 / 13) < 1e-9, d' "$out" "$tmp/a.gmem.raw"
else
    skip "--json" "needs python3"
fi

# gmem-trace(5): its worked example is a real trace, byte by byte.
page=$abs_top_srcdir/man/gmem-trace.5
sed -n 's/^\([0-9]\{7\} [0-9a-f][0-9a-f ]*\).*/\1/p' "$page" | sed 's/  .*//; s/^[0-9]* //' |
    tr ' ' '\n' | grep . >"$tmp/shown"
od -A n -v -t x1 -w1 "$seeds/example" | tr -d ' ' >"$tmp/bytes"
check "the example of the page" diff "$tmp/bytes" "$tmp/shown"
limit() { sed -n "s/^#define $1 (1u << \([0-9]*\)).*/\1/p" "$abs_top_srcdir/src/format/trace.h"; }
check "its limit" grep -q "^.It pages of all runs Ta $((1 << $(limit TRACE_PAGES_MAX))) " "$page"

# ---- what lies ----

head -c 100 "$seeds/plain" >"$tmp/cut"
t "cut short" 3 gmem-inspect trace "$tmp/cut"
check "says where" grep -q 'cut: has 100 bytes, its header says 320' "$err"
cp "$seeds/plain" "$tmp/flip"
printf '\377' | dd of="$tmp/flip" bs=1 seek=250 conv=notrunc 2>"$tmp/dd"
t "a byte that is wrong" 3 gmem-inspect trace "$seeds/plain" "$tmp/flip"
check "names the file" grep -q 'flip: checksum is' "$err"
check "and prints nothing" [ ! -s "$out" ]
t "an image" 3 gmem-inspect trace "$tmp/a.gmem"
check "is no trace" grep -q 'a.gmem: not a gmem trace' "$err"
t "an empty file" 3 gmem-inspect trace /dev/null
t "a folder" 1 gmem-inspect trace "$tmp"
t "no file" 1 gmem-inspect trace "$tmp/nothing"
check "names it" grep -q 'open .*nothing: No such' "$err"
t "a trace for an image" 3 gmem-inspect trace --image "$seeds/plain" "$seeds/plain"
from_pipe() { gmem-inspect trace --json /dev/stdin <"$seeds/plain"; }
t "from a pipe" 0 from_pipe
to_full() { gmem-inspect trace --list "$seeds/plain" >/dev/full; }
t "to a full disk" 1 to_full

for wrong in "trace" "trace --list a b" "trace --merge union a" "trace -o x a" "trace --force a" \
    "trace --merge both -o x a" "trace --json --list a" "trace --json --merge union -o x a" \
    "trace --image i --list a" "trace --region r a" "info --image a b" "map --merge union a"; do
    # shellcheck disable=SC2086
    t "$wrong" 2 gmem-inspect $wrong
done
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The map and its list cover every page once, and agree with the memory.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
make-image "$tmp/a.gmem" 4 6 32768 2 || exit 99

t "a drawing" 0 gmem-inspect map "$tmp/a.gmem"
check "is ASCII in the C locale" lacks '[^ -~]' "$out"
check "has a row for the second segment" grep -q '^0x100000000 [-.+*#]' "$out"
t "--width" 0 gmem-inspect map --width 8 "$tmp/a.gmem"
check "rows are as wide as said" grep -Eq '^0x000000000 [-.+*#]{8} ' "$out"
t "blocks in UTF-8" 0 env LC_ALL=C.UTF-8 gmem-inspect map "$tmp/a.gmem"
check "are there" grep -q '▒' "$out"
check "no colour in a file" lacks "$(printf '\033')" "$out"
t "no such region" 1 gmem-inspect map --region nothing "$tmp/a.gmem"
check "names it" grep -q 'no region is called nothing' "$err"

t "--list" 0 gmem-inspect map --list "$tmp/a.gmem"
awk 'NR > 1 { n += $4; if (misplaced($2, at)) bad = 1; at += $4 } END { print n, bad + 0 }
function misplaced(offset, at) { return offset != sprintf("0x%x", at) }' "$out" >"$tmp/sum"
check "the list has no gaps and is all of the memory" grep -qx "$((4 << 20)) 0" "$tmp/sum"
# shellcheck disable=SC2016 # these are awk's
check "classes take turns" awk '
    NR > 2 && $5 == last && $3 !~ /^0x100000000-/ { exit 1 }
    { last = $5 }' "$out"

if command -v python3 >/dev/null; then
    t "--json" 0 gmem-inspect map --json "$tmp/a.gmem"
    check "every range is what the memory is" python3 -c '
import json, sys
ranges = json.load(open(sys.argv[1]))["regions"][0]["ranges"]
raw = open(sys.argv[2], "rb").read()
at = 0
for r in ranges:
    assert int(r["offset"], 16) == at
    for page in range(at, at + r["size"], 4096):
        zero = not any(raw[page:page + 4096])
        assert zero == (r["class"] == "zero"), page
    assert (r["image_bytes"] == 0) == (r["class"] == "zero")
    at += r["size"]
assert at == len(raw)' "$out" "$tmp/a.gmem.raw"
    gmem-inspect info --json "$tmp/a.gmem" >"$tmp/info"
    check "shares of records add up" python3 -c '
import json, sys
ranges = json.load(open(sys.argv[1]))["regions"][0]["ranges"]
whole = json.load(open(sys.argv[2]))["regions"][0]["image_bytes"]
assert sum(r["image_bytes"] for r in ranges) == whole' "$out" "$tmp/info"
else
    skip "--json" "needs python3"
fi

t "--svg" 0 gmem-inspect map --svg "$tmp/a.svg" "$tmp/a.gmem"
t "an existing one is kept" 1 gmem-inspect map --svg "$tmp/a.svg" "$tmp/a.gmem"
t "but with --force" 0 gmem-inspect map --force --svg "$tmp/a.svg" "$tmp/a.gmem"
t "--svg -" 0 gmem-inspect map --svg - "$tmp/a.gmem"
check "is the same" cmp "$out" "$tmp/a.svg"
if command -v python3 >/dev/null; then
    check "is XML" python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$tmp/a.svg"
fi
done_testing

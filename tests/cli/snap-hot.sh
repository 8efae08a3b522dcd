#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --from and --hot: the same bytes, the working set first, each page once.
[ ! -w /dev/shm ] || : "${TMPDIR:=/dev/shm}"
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

same() { # NAME IMAGE RAW: verifies, and holds these bytes
    t "$1: verifies" 0 gmem-inspect verify "$2"
    rm -f "$tmp/raw"
    gmem-inspect extract "$2" -o "$tmp/raw" 2>/dev/null
    check "$1: equal bytes" cmp "$tmp/raw" "$3"
    rm -f "$tmp/raw"
}
pages_of() { # IMAGE CLASS: the offsets of its pages of 4 KiB
    gmem-inspect map --list "$1" | awk -v class="$2" '$5 == class { print $2, $4 }' |
        while read -r offset size; do
            seq $((offset / 4096)) $(((offset + size) / 4096 - 1))
        done | sort
}
body() { tail -c +129 "$1" | head -c -128 | sha256sum; } # without the header's and trailer's marks

make-image "$tmp/a" 16 9 65536 7 || exit 99
gmem-inspect map --list "$tmp/a" >"$tmp/list"
make-trace "$tmp/a" "$tmp/t" -r 11 1000 || exit 99
make-trace "$tmp/a" "$tmp/t2" -r 12 1000 || exit 99

t "pack" 0 gmem-snap -v --from "$tmp/a" --hot "$tmp/t" -o "$tmp/h"
check "tells what is hot" grep -Eq '1000 hot pages, [0-9]+ of them not zero' "$err"
same "packed" "$tmp/h" "$tmp/a.raw"
pages_of "$tmp/a" stored >"$tmp/stored"
gmem-inspect trace --list "$tmp/t" | awk 'NR > 1 { print $4, $5 }' | while read -r offset n; do
    seq $((offset / 4096)) $((offset / 4096 + n - 1))
done >"$tmp/order"
sort "$tmp/order" | comm -12 - "$tmp/stored" >"$tmp/want"
pages_of "$tmp/h" hot >"$tmp/hot"
check "hot is what was touched and is not zero" cmp "$tmp/hot" "$tmp/want"
pages_of "$tmp/h" stored >"$tmp/cold"
check "each page is there once" sh -c \
    "sort -m '$tmp/hot' '$tmp/cold' | cmp - '$tmp/stored' && [ -s '$tmp/cold' ]"
if command -v python3 >/dev/null; then
    gmem-inspect map --json "$tmp/h" >"$tmp/json"
    gmem-inspect info --json "$tmp/h" >"$tmp/info"
    check "shares of records add up" python3 -c '
import json, sys
ranges = json.load(open(sys.argv[1]))["regions"][0]["ranges"]
info = json.load(open(sys.argv[2]))
assert sum(r["image_bytes"] for r in ranges) == info["regions"][0]["image_bytes"]
hot = [r for r in ranges if r["class"] == "hot"]
assert sum(r["size"] for r in hot) == info["hot"]["stored_bytes"] == 4096 * info["memory"]["hot_pages"]
assert sum(r["image_bytes"] for r in hot) == info["hot"]["image_bytes"]' "$tmp/json" "$tmp/info"
else
    skip "shares of records add up" "needs python3"
fi
t "a drawing" 0 env LC_ALL=C gmem-inspect map "$tmp/h"
check "has a legend of hot pages" grep -q 'h half or more is hot' "$out"
t "--svg" 0 gmem-inspect map --svg - "$tmp/h"
check "has a note of hot pages" grep -q 'half of it or more is hot' "$out"
check "info tells it" sh -c "gmem-inspect info '$tmp/h' | grep -q '^hot        1000 pages'"
root=$(gmem-inspect info "$tmp/a" | awk '/^root hash/ { print $3 }')
check "and of what it was recorded" sh -c "gmem-inspect info '$tmp/h' | grep -q '^recorded   of $root'"

# The first bytes of content in the file are the pages in the order of their touch.
if command -v zstd >/dev/null; then
    n=$(wc -l <"$tmp/want")
    zstd -dc <"$tmp/h" 2>/dev/null | head -c $((n * 4096)) >"$tmp/first"
    while read -r page; do
        grep -qx "$page" "$tmp/want" &&
            dd if="$tmp/a.raw" bs=4096 skip="$page" count=1 2>/dev/null
    done <"$tmp/order" >"$tmp/expected"
    check "hot pages come first, in the order of their touch" cmp "$tmp/first" "$tmp/expected"
else
    skip "hot pages come first" "needs zstd"
fi

t "unpack" 0 gmem-snap --from "$tmp/h" -o "$tmp/u"
same "unpacked" "$tmp/u" "$tmp/a.raw"
check "the image is the old one" cmp "$tmp/u" "$tmp/a"
check "no page is hot" sh -c "! gmem-inspect map --list '$tmp/u' | grep -q hot"
t "pack again, with another" 0 gmem-snap --from "$tmp/h" --hot "$tmp/t2" -o "$tmp/h2"
same "packed again" "$tmp/h2" "$tmp/a.raw"
gmem-snap -q --from "$tmp/a" --hot "$tmp/t2" -o "$tmp/h3"
check "is as if it were the first time" cmp "$tmp/h2" "$tmp/h3"
t "in place" 0 gmem-snap -f --from "$tmp/h2" --hot "$tmp/t" -o "$tmp/h2"
check "is as good" cmp "$tmp/h2" "$tmp/h"

t "two traces" 0 gmem-snap --from "$tmp/a" --hot "$tmp/t" --hot "$tmp/t2" -o "$tmp/both"
same "of two traces" "$tmp/both" "$tmp/a.raw"
pages_of "$tmp/both" hot >"$tmp/hot"
gmem-inspect trace --list "$tmp/t2" | awk 'NR > 1 { print $4, $5 }' | while read -r offset n; do
    seq $((offset / 4096)) $((offset / 4096 + n - 1))
done | sort - "$tmp/order" | uniq | comm -12 - "$tmp/stored" >"$tmp/want"
check "hot is what either touched" cmp "$tmp/hot" "$tmp/want"

for n in 1 2 3 7; do
    gmem-snap -q -f --from "$tmp/a" --hot "$tmp/t" --threads $n -o "$tmp/n"
    check "$n threads make the same" cmp "$tmp/n" "$tmp/h"
done
gmem-snap -q --from "$tmp/a" --hot "$tmp/t" -o - | cat >"$tmp/piped"
check "into a pipe too" test "$(body "$tmp/piped")" = "$(body "$tmp/h")"

for size in 4K 2M; do
    t "chunks of $size" 0 gmem-snap -f --from "$tmp/h" --hot "$tmp/t" --chunk-size $size \
        --level 3 -o "$tmp/n"
    same "chunks of $size" "$tmp/n" "$tmp/a.raw"
    t "and back" 0 gmem-snap -f --from "$tmp/n" --chunk-size 64K --level 1 -o "$tmp/m"
    check "chunks of $size and back: the image is the old one" cmp "$tmp/m" "$tmp/a"
done
t "chunk size and level stay" 0 sh -c "gmem-snap -q -f --from '$tmp/n' --hot '$tmp/t' -o '$tmp/m' &&
    gmem-inspect info '$tmp/m' | grep -q 'chunks of 2 MiB, zstd level 3'"

# What is said of the image.
gmem-snap -q -f --from "$tmp/a" --hot "$tmp/t" --annotate "purpose=other" --annotate "x=y" -o "$tmp/n"
gmem-inspect info --json "$tmp/n" >"$tmp/json"
check "annotations: new ones replace old ones" sh -c \
    "tr -d ' \n' <'$tmp/json' | grep -q '\"annotations\":{\"x\":\"y\",\"purpose\":\"other\"}'"
gmem-inspect extract --state device -o "$tmp/s1" "$tmp/a" 2>/dev/null
gmem-inspect extract --state device -o "$tmp/s2" "$tmp/h" 2>/dev/null
check "states stay" cmp "$tmp/s1" "$tmp/s2"
t "--json" 0 gmem-snap -f --json --from "$tmp/a" --hot "$tmp/t" -o "$tmp/n"
check "counts" sh -c "tr -d ' \n' <'$out' | grep -q '\"hot\":{\"pages\":1000,\"pages_stored\":'"

# Straight from memory, with a trace of an image of before.
t "a memory file" 0 gmem-snap --file "ram=$tmp/a.raw" --hot "$tmp/t" -o "$tmp/f"
same "a memory file" "$tmp/f" "$tmp/a.raw"
pages_of "$tmp/f" hot >"$tmp/hot"
pages_of "$tmp/h" hot >"$tmp/want"
check "the same pages are hot" cmp "$tmp/hot" "$tmp/want"
gmem-snap -q --file "ram=$tmp/a.raw" -o "$tmp/g"
gmem-snap -q --from "$tmp/g" --hot "$tmp/t" -o "$tmp/g2"
check "in one step or two" cmp "$tmp/f" "$tmp/g2"
for n in 1 5; do
    gmem-snap -q -f --file "ram=$tmp/a.raw" --hot "$tmp/t" --threads $n -o "$tmp/n"
    check "$n threads make the same of memory" cmp "$tmp/n" "$tmp/f"
done
head -c 5000 "$tmp/a.raw" >"$tmp/odd"
tail -c 3000 "$tmp/stored" >>"$tmp/odd"
gmem-snap -q --file "ram=$tmp/odd" -o "$tmp/o"
make-trace "$tmp/o" "$tmp/ot" 0:1 0:0
t "memory of an odd size" 0 gmem-snap --file "ram=$tmp/odd" --hot "$tmp/ot" -o "$tmp/oh"
same "memory of an odd size" "$tmp/oh" "$tmp/odd"

# Zeros only, and everything.
truncate -s 1M "$tmp/zeros"
gmem-snap -q --file "ram=$tmp/zeros" -o "$tmp/z"
make-trace "$tmp/z" "$tmp/zt" 0:3+200
t "only zeros were touched" 0 gmem-snap --from "$tmp/z" --hot "$tmp/zt" -o "$tmp/zh"
same "only zeros" "$tmp/zh" "$tmp/zeros"
make-trace "$tmp/a" "$tmp/all" 0:0+4096
t "everything was touched" 0 gmem-snap --from "$tmp/a" --hot "$tmp/all" -o "$tmp/ah"
same "everything" "$tmp/ah" "$tmp/a.raw"

# Errors, which leave nothing behind.
fails() { # NAME STATUS PATTERN OPTION...
    name=$1 status=$2 pattern=$3
    shift 3
    t "$name" "$status" gmem-snap "$@" -o "$tmp/none"
    check "$name: says so" grep -q -- "$pattern" "$err"
    check "$name: leaves nothing" test ! -e "$tmp/none"
}
fails "no such image" 1 'open .*nothing' --from "$tmp/nothing" --hot "$tmp/t"
fails "no image" 3 'not a gmem image' --from "$tmp/a.raw"
fails "no such trace" 1 'nothing' --from "$tmp/a" --hot "$tmp/nothing"
fails "an image for a trace" 3 "$tmp/h" --from "$tmp/a" --hot "$tmp/h"
make-trace "$tmp/a" "$tmp/none" && mv "$tmp/none" "$tmp/empty"
fails "a trace of nothing" 1 'the trace has no pages' --from "$tmp/a" --hot "$tmp/empty"
gmem-snap -q --file "other=$tmp/odd" -o "$tmp/vm"
make-trace "$tmp/vm" "$tmp/vt" 0:0+2
fails "a trace of another VM" 1 'it is of another VM' --from "$tmp/a" --hot "$tmp/vt"
fails "of memory too" 1 'it is of another VM' --file "ram=$tmp/a.raw" --hot "$tmp/vt"
make-trace "$tmp/a" "$tmp/far" 0:4000+4 0:0+2
t "pages behind the end" 0 gmem-snap -f -v --json --from "$tmp/o" --hot "$tmp/far" -o "$tmp/n"
check "are told" sh -c "tr -d ' \n' <'$out' | grep -q '\"pages_dropped\":4'"
head -c 100000 "$tmp/a" >"$tmp/cut"
fails "an image that was cut" 3 'truncated\|trailer' --from "$tmp/cut"
cp "$tmp/a" "$tmp/bad"
printf 'XXXXXXXX' | dd of="$tmp/bad" bs=1 seek=60000 conv=notrunc 2>/dev/null
fails "a damaged image" 3 'bad: ram: chunk at' --from "$tmp/bad" --hot "$tmp/t"
fails "a record that would be copied as it is" 3 'bad: ram: chunk at' --from "$tmp/bad"
t "an image that exists" 1 gmem-snap --from "$tmp/a" -o "$tmp/h"
t "--state" 2 gmem-snap --from "$tmp/a" --state "x=$tmp/s1" -o "$tmp/none"
t "another place of memory" 2 gmem-snap --from "$tmp/a" --file "$tmp/odd" -o "$tmp/none"
t "--hot with --pause-less" 2 gmem-snap --handoff "$tmp/s" --pause-less --hot "$tmp/t" -o "$tmp/none"
t "--hot with --list" 2 gmem-snap --list --pid $$ --hot "$tmp/t"
if unshare -rm true 2>/dev/null; then
    mkdir "$tmp/mnt"
    # shellcheck disable=SC2016 # the inner shell's
    t "a full disk" 1 unshare -rm sh -c 'mount -t tmpfs -o size=1m none "$1/mnt" &&
        exec gmem-snap --from "$1/a" --hot "$1/t" -o "$1/mnt/h"' sh "$tmp"
    check "says so" grep -q 'No space left' "$err"
else
    skip "a full disk" "may not mount"
fi
done_testing

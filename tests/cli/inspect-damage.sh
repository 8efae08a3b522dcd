#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Images that are damaged, unfinished, of another time, or none: a status each.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
make-image "$tmp/a.gmem" 2 8 32768 4 || exit 99
size=$(wc -c <"$tmp/a.gmem")

each() { # NAME STATUS IMAGE: every verb says the same
    for verb in info verify map root "extract -o $tmp/out" "map --json" "info --json"; do
        # shellcheck disable=SC2086
        t "$1: $verb" "$2" gmem-inspect $verb "$3"
        check "$1: nothing on stdout" test ! -s "$out"
        check "$1: one line on stderr" lines 1 "$err"
    done
    t "$1: cat" "$2" gmem-inspect cat "$3" 0
    check "$1: no file" test ! -e "$tmp/out"
}

patch_byte() { # IMAGE OFFSET OCTAL...
    patch_image=$1 patch_offset=$2
    shift 2
    # shellcheck disable=SC2059
    printf "$@" | dd of="$patch_image" bs=1 seek="$patch_offset" conv=notrunc 2>/dev/null
}

head -c $((size / 2)) "$tmp/a.gmem" >"$tmp/cut.gmem"
each "cut in half" 3 "$tmp/cut.gmem"
head -c $((size - 1)) "$tmp/a.gmem" >"$tmp/cut.gmem"
each "one byte short" 3 "$tmp/cut.gmem"
: >"$tmp/empty.gmem"
each "empty" 3 "$tmp/empty.gmem"
head -c 100000 "$tmp/a.gmem.raw" >"$tmp/garbage"
each "garbage" 3 "$tmp/garbage"

cp "$tmp/a.gmem" "$tmp/part.gmem"
patch_byte "$tmp/part.gmem" 24 PART
each "unfinished" 4 "$tmp/part.gmem"
check "it says so" grep -q 'incomplete' "$err"

cp "$tmp/a.gmem" "$tmp/new.gmem"
patch_byte "$tmp/new.gmem" 16 '\002\000'
each "a later version" 5 "$tmp/new.gmem"

t "missing" 1 gmem-inspect info "$tmp/nothing.gmem"
check "it is named" grep -q 'nothing.gmem: No such file' "$err"
t "a folder" 1 gmem-inspect info "$tmp"

# Damage in a record is found by verify and by who reads it, not by who does not.
cp "$tmp/a.gmem" "$tmp/bad.gmem"
patch_byte "$tmp/bad.gmem" 50000 '\252\125\252\125\252\125\252\125'
t "a damaged record: info" 0 gmem-inspect info "$tmp/bad.gmem"
for n in 1 4; do
    t "a damaged record: verify, $n threads" 3 gmem-inspect verify --threads $n "$tmp/bad.gmem"
    check "region, address and place are named" grep -Eq 'bad.gmem: ram: chunk at 0x[0-9a-f]+: record at byte [0-9]+: ' "$err"
    check "stdout is empty" test ! -s "$out"
    cp "$err" "$tmp/err.$n"
done
check "and are the same for any number of threads" cmp "$tmp/err.1" "$tmp/err.4"
done_testing

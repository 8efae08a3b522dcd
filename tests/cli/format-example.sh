#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-image(5): its worked example is a real image, byte by byte, and its limits
# are those of the program.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
requires awk od

page=$abs_top_srcdir/man/gmem-image.5
layout=$abs_top_srcdir/src/format/layout.h
image=$tmp/example.gmem

# Every byte of the image as "offset byte", and every byte that the page shows;
# an asterisk stands for zeros up to the next line's offset.
bytes() {
    od -A n -v -t x1 -w1 "$1" | awk '{ print NR - 1, $1 }'
}

shown() {
    awk '
    /^\*$/ { star = 1; next }
    /^[0-9][0-9][0-9][0-9][0-9][0-9][0-9] / {
        off = $1 + 0
        for (; star && at < off; at++)
            print at, "00"
        star = 0
        at = off
        sub(/  .*/, "") # what the bytes are
        for (i = 2; i <= NF; i++)
            print at++, $i
    }' "$page"
}

same_bytes() {
    bytes "$image" >"$tmp/real" && shown >"$tmp/page" &&
        diff "$tmp/page" "$tmp/real"
}

# limit NAME NUMBER: the page gives the number, and the program keeps it.
limit() {
    value=$(sed -n "s/^#define $1 \([^/]*\).*/\1/p" "$layout" |
        sed 's/UINT64_C(\([0-9]*\))/\1/g; s/\([0-9]\)u/\1/g')
    # shellcheck disable=SC2004
    [ -n "$value" ] && [ $(($value)) -eq "$2" ] && grep -q "[ .]$2\b" "$page"
}

t "the example is made, and is an image" 0 make-example "$image"
check "the page shows each of its bytes" same_bytes
check "the page shows the file to its end" \
    [ "$(shown | tail -n 1 | cut -d' ' -f1)" -eq "$(($(wc -c <"$image") - 1))" ]
if command -v zstd >/dev/null; then
    t "zstd -t takes it" 0 zstd -q -t "$image"
    t "zstd -dc gets the pages out" 0 zstd -q -dc "$image"
    check "both of them" [ "$(wc -c <"$out")" -eq 8192 ]
    check "the state's" grep -aq "a device's state" "$out"
    check "the region's" [ "$(grep -ac "A page of the guest's memory" "$out")" -eq 128 ]
else
    skip "zstd -t takes it" "no zstd"
fi
check "limit of a file" limit IMAGE_SIZE_MAX 281474976710656
check "limit of an object" limit OBJECT_SIZE_MAX 70368744177664
check "limit of the manifest" limit MANIFEST_SIZE_MAX 4194304
check "limit of nesting" limit MANIFEST_DEPTH_MAX 8
check "limit of objects" limit OBJECTS_MAX 256
check "limit of segments" limit SEGMENTS_MAX 256
check "limit of pairs" limit PAIRS_MAX 1024
check "limit of names" limit NAME_LENGTH_MAX 255
check "limit of texts" limit TEXT_LENGTH_MAX 65535
check "limit of arguments" limit ARGUMENTS_MAX 65535
check "limit of page sizes" limit OBJECT_PAGE_SIZE_MAX 1073741824
check "limit of hot pages" limit HOT_PAGES_MAX 4194304
check "limit of levels" limit LEVEL_MAX 1000000
check "limit of chunks" limit CHUNK_SIZE_MAX 2097152
check "least chunk" limit CHUNK_SIZE_MIN 4096
if command -v mandoc >/dev/null; then
    t "mandoc finds nothing wrong" 0 mandoc -T lint -W warning "$page"
else
    skip "mandoc finds nothing wrong" "no mandoc"
fi
done_testing

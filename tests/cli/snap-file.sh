#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --file: what goes in comes out, the same image whatever the threads.
# A disk would make this test wait for its syncs.
[ ! -w /dev/shm ] || : "${TMPDIR:=/dev/shm}"
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

make-image "$tmp/a" 9 5 32768 5 || exit 99 # for its raw memory, a.raw
raw=$tmp/a.raw
same() { # NAME RAW OPTION...: saves, verifies, extracts and compares
    name=$1 file=$2
    shift 2
    t "$name" 0 gmem-snap --file "$file" -f -o "$tmp/i" "$@"
    t "$name: is whole" 0 gmem-inspect verify "$tmp/i"
    rm -f "$tmp/o"
    gmem-inspect extract "$tmp/i" -o "$tmp/o" 2>/dev/null
    check "$name: equal" cmp "$tmp/o" "$file"
}

for size in 4K 16K 32K 64k 2M; do
    gmem-snap -q --file "$raw" -o "$tmp/1" -f --chunk-size $size --threads 1
    for n in 2 8; do
        same "chunks of $size, $n threads" "$raw" --chunk-size $size --threads $n
        check "the same image as with one" cmp "$tmp/1" "$tmp/i"
    done
done
for level in -5 1 3 12; do
    same "level $level" "$raw" --level "$level"
    check "level $level: zstd accepts the image" zstd -qt "$tmp/i"
done

for size in 1 4095 4096 4097 65537 1048577 3000001; do
    head -c $size "$raw" >"$tmp/odd"
    same "$size bytes" "$tmp/odd"
done
truncate -s 5M "$tmp/zero"
same "nothing but a hole" "$tmp/zero"
check "is a small image" test "$(stat -c %s "$tmp/i")" -lt 2000
cp --sparse=never "$tmp/zero" "$tmp/zero2"
gmem-snap -q -f --file "$tmp/zero2" -o "$tmp/j"
check "zeros are like holes" cmp "$tmp/i" "$tmp/j"
# Data at odd places of a sparse file, so that runs end inside chunks.
truncate -s 40M "$tmp/sparse"
for at in 0 1 17 511 4096 4099 10239; do
    head -c 4097 /dev/urandom |
        dd of="$tmp/sparse" bs=4096 seek=$at conv=notrunc 2>/dev/null
done
for size in 4K 32K 2M; do
    same "sparse, chunks of $size" "$tmp/sparse" --chunk-size $size
done
cp --sparse=never "$tmp/sparse" "$tmp/dense"
gmem-snap -q -f --file "$tmp/dense" -o "$tmp/j" --chunk-size 2M
check "a sparse file is like a dense one" cmp "$tmp/i" "$tmp/j"

t "several files" 0 gmem-snap -f --file "low=$raw" --file "$tmp/odd" --file "$tmp/zero" \
    --state "cpu=$tmp/odd" --state "dev=$0" --annotate "why=a test" --annotate empty= \
    -o "$tmp/i"
t "names" 0 gmem-inspect info "$tmp/i"
for word in low ram ram-1 cpu dev 'a test'; do
    check "has $word" grep -q -- "$word" "$out"
done
check "no time" lacks -i 'created' "$out"
for part in "region low:$raw" "region ram:$tmp/odd" "region ram-1:$tmp/zero" \
    "state cpu:$tmp/odd" "state dev:$0"; do
    what=${part%%:*}
    # shellcheck disable=SC2086
    t "$what" 0 gmem-inspect extract "$tmp/i" --$what -o -
    check "equal" cmp "$out" "${part#*:}"
done
mv "$tmp/odd" "$tmp/a=b"
t "what is no name belongs to the path" 0 gmem-snap -f --file "$tmp/a=b" -o "$tmp/j"
t "is called ram" 0 gmem-inspect extract "$tmp/j" --region ram -o -
check "equal" cmp "$out" "$tmp/a=b"

t "--timestamp" 0 gmem-snap -f --file "$raw" -o "$tmp/i" --timestamp
t "is in the image" 0 gmem-inspect info --json "$tmp/i"
check "of this year" grep -q "$(date -u +%Y)-" "$out"

t "to a pipe" 0 sh -c "gmem-snap --file $raw -o - | cat >$tmp/piped"
t "is whole" 0 gmem-inspect verify "$tmp/piped"
t "--json" 0 gmem-snap -f --json --file "$raw" -o "$tmp/i"
check "schema" grep -q '"schema": 1' "$out"
check "root" grep -q "\"root\": \"$(gmem-inspect root "$tmp/i" | cut -d ' ' -f 1)\"" "$out"
check "size" grep -q "\"image_size\": $(stat -c %s "$tmp/i")," "$out"
check "bytes" grep -q "\"bytes\": $((9 << 20))," "$out"
check "nothing on stderr" test ! -s "$err"
t "-q" 0 gmem-snap -q -f --file "$raw" -o "$tmp/i"
check "is quiet" test ! -s "$out" -a ! -s "$err"
t "--progress-fd" 0 sh -c "gmem-snap -q -f --file $raw -o $tmp/i --progress-fd 3 3>$tmp/progress"
check "says when all is done" last "$((9 << 20)) $((9 << 20)) saving" "$tmp/progress"
done_testing

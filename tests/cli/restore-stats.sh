#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Statistics of a restore: what they count adds up, to the page; and the background.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
requires jq python3
needs_userfaultfd

s=$tmp/stats.json
is() { # NAME CONDITION [OPTION...]: of the statistics
    is_name=$1 is_what=$2
    shift 2
    check "$is_name" jq -e "$@" "$is_what" "$s"
}

# Idle CPU may be rare: it may take long.
complete() {
    for _ in 1 2 3 4 5; do
        await grep -q 'all memory is there$' "$tmp/said" && return
    done
    false
}

image small 65536 ram=memfd,32,12,2
# shellcheck disable=SC2154
gmem-inspect info --json "$image" >"$tmp/info" || exit 99
stored=$(jq .memory.stored_pages "$tmp/info")
zero=$(jq .memory.zero_pages "$tmp/info")
mem='open={mem} pattern=2,12'

adds_up() { # WHAT
    is "$1: pages given are the sum of their classes" \
        '.pages | .demand + .around + .prefetched + .background == .given'
    is "$1: a fault of each page that was given for one" \
        '.pages.demand == .faults.stored + .faults.zero'
    is "$1: the first answers have their latency" \
        '.latency.count == .faults.stored + .faults.zero'
    is "$1: which is split by what they met" \
        '.latency_by | .stored.count + .hot.count == $f.stored and .zero.count == $f.zero and
            .present.count == $f.present' --argjson f "$(jq .faults "$s")"
    is "$1: buckets hold what was counted" \
        '[.latency, .latency_by[]] | all(([.buckets[][1]] | add // 0) == .count)'
    is "$1: the series has columns of one length, of 512 samples at most" \
        '[.series[] | length] | min == max and .[0] <= 512 and .[0] >= 2'
    is "$1: its numbers never fall" '.series | all(. == sort)'
    is "$1: and it ends with the totals" \
        '.pages as $p | .faults as $f | .bytes_read as $b | .series | map_values(.[-1]) |
            .demand == $p.demand and .around == $p.around and .prefetched == $p.prefetched and
            .background == $p.background and .zero == $p.zero and .bytes_read == $b and
            .faults == $f.stored + $f.zero + $f.present + $f.waited + $f.outside'
    is "$1: nothing was to be prefetched" '.prefetch == null'
    is "$1: what gmem-restore took is told" \
        '.process | .rss_max > .rss_anon and .rss_anon > 0 and .cpu_user_ms >= 0'
}
options="--no-background --stats $s"
# shellcheck disable=SC2086
vmm "every page touched once" 0 $mem map touch=1
adds_up "touched"
is "touched: every page was given, once" ".pages.given == $stored + $zero"
is "touched: those of zeros too" ".pages.zero == $zero and .faults.zero == $zero"
is "touched: nothing in the background but the first page" '.pages.background == 1'
is "touched: it was never complete" '.times_ms | has("complete") | not'
is "touched: no write" '.faults.write == 0'

# shellcheck disable=SC2086
vmm "every page written" 0 $mem map write=1
is "written: faults of writes" '.faults.write >= .pages.demand'

# shellcheck disable=SC2086
vmm "nothing touched" 0 $mem map
adds_up "untouched"
is "untouched: the first page alone was given" '.pages.given == 1'
is "untouched: no latency" '.latency | .count == 0 and .p99_ns == 0 and .buckets == []'

options="--stats $s"
# shellcheck disable=SC2086
vmm "in the background" 0 $mem map sleep=100 touch=2
adds_up "background"
is "background: stored pages come once, whoever gives them" ".pages.given - .pages.zero == $stored"

options="--background off --stats $s"
# shellcheck disable=SC2086
vmm "--background off" 0 $mem map sleep=200
is "off: nothing but the first page" '.pages.given == 1'
# Past the page cache nothing is at hand, and all of it waits until nobody has asked for a while.
for how in on idle "on --cold-io direct"; do
    rm -f "$s" "$tmp/go" "$tmp/said"
    # shellcheck disable=SC2086
    timeout -k 5 "$patience" gmem-restore -v --background $how --stats "$s" "$image" -- \
        vmm-touch $mem map wait="$tmp/go" touch=2 2>"$tmp/said" &
    pid=$!
    check "--background $how: all memory comes" complete
    : >"$tmp/go"
    t "--background $how: and it is right" 0 wait $pid
    is "$how: every stored page by the background" \
        ".pages.background == $stored and .pages.given == $stored"
    is "$how: no fault" '[.faults[]] | add == 0'
    is "$how: the time is told" '.times_ms | .complete <= .ended'
done
# A rate: however late it comes, no more than that, a tenth of a second, a piece of the same and
# the first page; but it comes.
image slow 4096 ram=memfd,4,90,2
slow=$(gmem-inspect info --json "$image" | jq .memory.stored_pages)
rm -f "$s" "$tmp/go" "$tmp/said"
timeout -k 5 "$patience" gmem-restore -v --background rate=2M/s --stats "$s" "$image" -- \
    vmm-touch 'open={mem}' pattern=2,90 map wait="$tmp/go" touch=1 2>"$tmp/said" &
pid=$!
check "rate: all memory comes" complete
: >"$tmp/go"
t "rate: and it is right" 0 wait $pid
is "rate: no faster than that" \
    "($slow - 1) * 4096 <= 2097152 * (.times_ms.complete / 1000 + 0.2) + 4096"
is "rate: all by the background" ".pages.background == $slow"
for how in rate= rate=0000000000000000000000000065536junk rate=0 rate=1 rate=-1M rate=2Mx/s rate=1M/s/s rate=9999T idly "" on.; do
    t "--background \"$how\" is wrong usage" 2 gmem-restore --background "$how" "$image" -- true
done
t "--eager and --background off" 2 gmem-restore --eager --background off "$image" -- true

options="--eager --stats $s"
image small 65536 ram=memfd,32,12,2
# shellcheck disable=SC2086
vmm "eagerly" 0 $mem map touch=1
is "eagerly: all stored pages" ".pages.given == $stored and .pages.background == $stored"
is "eagerly: no fault" '[.faults[]] | add == 0'
is "eagerly: the series ends with them" ".series.background[-1] == $stored"

options="-v"
# shellcheck disable=SC2086
vmm "without --stats" 0 $mem map touch=1
check "a summary at -v" grep -q 'a fault waited [0-9]* us (median)' "$err"
check "and what it took" grep -q 'gmem-restore took .* ms of CPU, .* of memory at most' "$err"

# The server's memory, whatever the size of the guest and of the chunks.  Sanitizers take more.
within() { # NAME
    if ldd "$(command -v gmem-restore)" | grep -qE 'lib(a|t)san'; then
        skip "$1: 64 MiB at most" "a sanitizer takes memory too"
    else
        is "$1: 64 MiB at most" '.process.rss_max <= 67108864'
    fi
}
python3 - "$tmp/raw" <<'END'
import os, sys
f = open(sys.argv[1], 'wb')
f.truncate(64 << 30)
for i in range(1024):
    os.pwrite(f.fileno(), os.urandom(4096), i << 26)
END
for chunk in 4096 65536 2097152; do
    image sized $chunk hot=2 ram=memfd,96,80,2
    for options in "--threads 4" "--threads 4 --background off" "--threads 4 --prefetch all" \
        "--threads 4 --eager"; do
        options="$options --stats $s"
        vmm "chunks of $chunk, $options" 0 'open={mem}' pattern=2,80 map touch=4
        within "chunks of $chunk"
    done
    gmem-snap --file "$tmp/raw" --chunk-size $chunk -f -o "$tmp/sparse.gmem" -q || exit 99
    image=$tmp/sparse.gmem
    rm -f "$tmp/go" "$s" "$tmp/said"
    timeout -k 5 "$patience" gmem-restore -v --stats "$s" "$image" -- \
        vmm-touch 'open={mem}' map wait="$tmp/go" 2>"$tmp/said" &
    pid=$!
    check "64 GiB, chunks of $chunk: all memory comes" complete
    : >"$tmp/go"
    t "64 GiB, chunks of $chunk" 0 wait $pid
    is "64 GiB, chunks of $chunk: all came" '.pages.given == 1024'
    within "64 GiB, chunks of $chunk"
    is "64 GiB, chunks of $chunk: notes about pages are given back" '.process.rss_shmem <= 524288'
done

done_testing

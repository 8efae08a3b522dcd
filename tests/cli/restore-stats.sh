#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Statistics of a restore: what they count adds up, to the page.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
requires jq
needs_userfaultfd

s=$tmp/stats.json
is() { # NAME CONDITION [OPTION...]: of the statistics
    is_name=$1 is_what=$2
    shift 2
    check "$is_name" jq -e "$@" "$is_what" "$s"
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

options="--eager --stats $s"
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

done_testing

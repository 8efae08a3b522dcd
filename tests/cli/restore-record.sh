#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# --record: the pages that a VMM touches first, each once, in their order, and no others.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd
trace=$tmp/a.trace

# The pages of a trace as vmm-touch names them, one a line: r7, w9.  $1: the region.
recorded() {
    gmem-inspect trace --list "$trace" | awk -v region="$1" '
    function hex(s, n, i) {
        for (i = 3; i <= length(s); i++)
            n = 16 * n + index("0123456789abcdef", substr(s, i, 1)) - 1
        return n
    }
    NR > 1 && $3 == region {
        for (i = 0; i < $5; i++)
            print substr($2, 1, 1) hex($4) / 4096 + i
    }'
}
# LIST: the first touch of each page.
firsts() { echo "$1" | tr ',' '\n' | awk '!seen[substr($0, 2)]++'; }
is_recorded() { # LIST [REGION]; LIST "many": $many
    [ "$1" != many ] || set -- "$many"
    firsts "$1" >"$tmp/want"
    recorded "${2:-ram}" >"$tmp/got"
    [ -s "$tmp/got" ] && diff "$tmp/want" "$tmp/got"
}
ended() { gmem-inspect trace "$trace" | grep -q "until: $1\$"; }
vmm_records() { # NAME STATUS WORD...
    rm -f "$trace"
    vmm "$@"
}
# N pages below MAX, some twice, read or written: the same ones each time.
random_pages() {
    awk -v n="$1" -v max="$2" 'BEGIN {
        srand(7)
        for (i = 0; i < n; i++)
            printf "%s%s%d", i ? "," : "", rand() < 0.3 ? "w" : "r", int(rand() * max)
    }'
}

image order 32768 ram=memfd,32,12,2
mem='open={mem} pattern=2,12'
# Neighbours forwards and backwards, far away, again; the first and the last page.
few=r5,r6,w900,r7,w8000,r100,r4,r6,w5,r8191,r0,w7999,w101,r99
many=$(random_pages 3000 8192)
for engine in continue map-continue; do
    for more in '' --no-background; do
        options="--record $trace --engine $engine $more"
        # shellcheck disable=SC2086
        vmm_records "$engine${more:+, $more}: a few pages" 0 $mem map pages=$few
        check "are recorded, in their order, and no others" is_recorded $few
        # shellcheck disable=SC2086
        vmm_records "$engine${more:+, $more}: many pages" 0 $mem map "pages=$many"
        check "are recorded, too" is_recorded many
    done
done
check "until the VMM's end" ended exit
check "for its owner" test "$(stat -c %a "$trace")" = 600

options="--record $trace -v"
# shellcheck disable=SC2086
vmm_records "all of it" 0 $mem map touch=4
check "is recorded, each page once" test "$(recorded ram | sort -u | wc -l)" -eq 8192
check "-v says how much" grep -Eq 'a.trace: recorded 8192 pages in [0-9]+ runs, .* until exit' "$err"
# shellcheck disable=SC2086
vmm_records "mapped twice" 0 $mem twice pages=r5,r8197,r6,w8199
check "a page counts once" is_recorded r5,r6,w7
# shellcheck disable=SC2086
vmm_records "two processes" 0 $mem map pages=r5,r6 fork open='{mem}' map pages=r6,r7,r5,w4
check "a page counts once there too" is_recorded r5,r6,r7,w4
# shellcheck disable=SC2086
vmm_records "split, unmapped and mapped again" 0 $mem map split pages=r9,r8 unmap map pages=r8,r7
check "a page counts once then too" is_recorded r9,r8,r7
# shellcheck disable=SC2086
vmm_records "discarded" 0 $mem map discard=remove,2 pages=w4,r5
check "pages are recorded as others" is_recorded w4,r5

image regions 32768 a=memfd,8,12,3 b=memfd,8,12,4
vmm_records "two regions" 0 open='{mem:a}' pattern=3,12 map pages=r5,w6 \
    open='{mem:b}' pattern=4,12 map pages=r7,r8
check "each has its pages" is_recorded r5,w6 a
check "and the other" is_recorded r7,r8 b

image zeros 32768 ram=memfd,8,0,6
vmm_records "zeros" 0 open='{mem}' pattern=6,0 map pages=r9,w5,r6
check "are recorded" is_recorded r9,w5,r6
image dense 4096 ram=memfd,8,32,6
vmm_records "the page that tries write(2), not touched" 0 open='{mem}' pattern=6,32 map pages=r9
check "is not recorded" is_recorded r9
vmm_records "touched" 0 open='{mem}' pattern=6,32 map pages=r3,r2,r1,r0
check "it is" is_recorded r3,r2,r1,r0
image none 32768 ram=memfd,8,12,6
vmm_records "nothing is touched" 0 open='{mem}' map
check "a trace of nothing" gmem-inspect trace "$trace"
check "and a word about it" grep -q 'nothing was recorded' "$err"

free=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 0)
if [ "$free" -ge 8 ]; then
    image huge 32768 ram=hugetlb,16,12,7
    vmm_records "huge pages" 0 open='{mem}' pattern=7,12 map pages=r700,w600,r5
    recorded ram >"$tmp/got"
    check "are recorded whole" test "$(tr -d 'rw\n' <"$tmp/got" | wc -c)" -gt 1024 -a \
        "$(wc -l <"$tmp/got")" -eq 1024 -a "$(head -n 1 "$tmp/got")" = r512
else
    skip "huge pages" "8 free ones of 2 MiB are needed, there are $free"
fi

# ---- memory of the VMM's own: GMEM_TEST_OWN=guest_memfd where there is one ----

image=$tmp/order.gmem
kind=${GMEM_TEST_OWN:-memfd}
for engine in auto map-continue; do
    options="--vmm handoff --record $trace --engine $engine"
    vmm_records "own $kind, $engine" 0 "own=$kind,32" pattern=2,12 map "pages=$few"
    check "is recorded" is_recorded $few
    vmm_records "own $kind, $engine, many pages" 0 "own=$kind,32" pattern=2,12 map "pages=$many"
    check "is recorded" is_recorded many
done

# ---- pages that are there before they are touched ----

image=$tmp/order.gmem
for what in none all "trace=$tmp/many.trace"; do
    if [ ! -e "$tmp/many.trace" ]; then
        options="--record $tmp/many.trace"
        # shellcheck disable=SC2086
        vmm "a trace to prefetch" 0 $mem map "pages=$many"
    fi
    options="--record $trace --prefetch $what --stats $tmp/stats"
    # Waits until all is there: a touch is seen in spite of that.
    # shellcheck disable=SC2086
    vmm_records "--prefetch ${what%%=*}" 0 $mem map sleep=500 "pages=$many"
    check "touches are recorded all the same" is_recorded many
done
check "pages were there" grep -Eq '"present": [1-9]' "$tmp/stats"
t "packed" 0 gmem-snap -q --from "$image" --hot "$tmp/many.trace" -o "$tmp/hot.gmem"
t "a trace of hot pages" 0 gmem-inspect trace --image "$tmp/hot.gmem" "$tmp/many.trace"
check "says so" grep -Eq 'in image .*: ([1-9][0-9]+) pages .* stored, \1 of them hot' "$out"
image=$tmp/hot.gmem
for more in '' '--prefetch hot' --no-background; do
    options="--record $trace $more"
    # shellcheck disable=SC2086
    vmm_records "an image with hot pages ${more}" 0 $mem map sleep=300 "pages=$many"
    check "is recorded like another" is_recorded many
done

# ---- how it ends ----

image=$tmp/order.gmem
# Starts a VMM that touches few pages, and waits for $tmp/go before it touches all.
begin() { # OPTION...
    rm -f "$trace" "$tmp/go" "$tmp/ready"
    # shellcheck disable=SC2086
    timeout -k 5 "$patience" gmem-restore -v --record "$trace" "$@" "$image" -- vmm-touch \
        $mem map pages=$few pid="$tmp/ready" wait="$tmp/go" verify >"$out" 2>"$err" &
    timed=$!
    await test -e "$tmp/ready"
    restore=$(awk '/^PPid/ { print $2 }' "/proc/$(cat "$tmp/ready")/status")
}
finish() {
    : >"$tmp/go"
    wait $timed
    got=$?
}
is_there() { gmem-inspect trace "$trace"; }
all_is_there() { grep -q 'all memory is there' "$err"; }

begin --record-until ready
sleep 0.3
check "--record-until ready: there is no trace yet" test ! -e "$trace"
check "nothing is filled" lacks 'all memory is there' "$err"
kill -USR2 "$restore"
check "SIGUSR2 ends it" await is_there
check "then the rest is filled" await all_is_there
finish
check "the VMM has not had the signal" test $got -eq 0
check "the trace ends there" is_recorded $few
check "and says so" ended ready

begin --record-until settled
check "--record-until settled" await is_there
check "then the rest is filled" await all_is_there
finish
check "the VMM runs on" test $got -eq 0
check "the trace ends there" is_recorded $few
check "and says so" ended settled

begin --record-until 1
check "--record-until 1" await is_there
finish
check "the VMM runs on" test $got -eq 0
check "the trace ends there" is_recorded $few
check "and says so" ended time

begin --record-until ready
kill -KILL "$(cat "$tmp/ready")"
finish
check "a VMM that is killed" test $got -eq 137
check "leaves what it has touched" is_recorded $few
check "and how that ended" ended exit

cp "$image" "$tmp/bad.gmem"
# The stored page that is stored last is somewhere in the middle of the file.
size=$(stat -c %s "$image")
for at in 3 4 5 6 7; do
    printf '\377\377\377\377\377\377\377\377' |
        dd of="$tmp/bad.gmem" bs=1 seek=$((size * at / 10)) conv=notrunc 2>"$tmp/dd"
done
image=$tmp/bad.gmem
# shellcheck disable=SC2086
vmm_records "a page that is damaged" 3 $mem map pages=$few verify
check "leaves what was touched" sh -c "gmem-inspect trace --list '$trace' | grep -q 0x384000"
check "and that it failed" ended failed
image=$tmp/order.gmem

# ---- what can't be ----

options="--record $tmp/no/such.trace"
vmm "a folder that is not there" 1 open='{mem}' pid="$tmp/started"
check "names it" grep -q 'record.*no' "$err"
options="--record $image"
vmm "the image itself" 1 open='{mem}' pid="$tmp/started"
check "is no trace" grep -q 'order.gmem: is no trace, and is not overwritten' "$err"
check "is still there" gmem-inspect verify "$image"
options="--record $tmp"
vmm "a folder" 1 open='{mem}' pid="$tmp/started"
check "the VMM was not started for that" test ! -e "$tmp/started"
options="--record $trace"
# shellcheck disable=SC2086
vmm "a trace that is there" 0 $mem map pages=r1
check "is replaced" is_recorded r1
if [ -w /dev/full ]; then
    options="--record /dev/full"
    # shellcheck disable=SC2086
    vmm "a full disk" 1 $mem map pages=$few exit=0
    check "says so" grep -q 'record: /dev/full: .*No space' "$err"
    options="--record /dev/full --record-until 1"
    # shellcheck disable=SC2086
    vmm "a full disk is no reason to stop the VM" 7 $mem map pages=$few sleep=1500 verify exit=7
    check "says so" grep -q 'record: /dev/full: .*No space' "$err"
fi
for wrong in "--record-until ready" "--record t --record-until never" "--record t --record-until 0" \
    "--record t --record-until 1s" "--record t --record-until 86401" "--record t --eager" \
    "--record t --listen s" "--record"; do
    # shellcheck disable=SC2086
    t "$wrong" 2 gmem-restore "$image" $wrong
done
for option in --record --stats; do
    t "$option without a name" 2 gmem-restore $option "" "$image" -- true
    check "says so" grep -q -e "$option wants the name" "$err"
done

check "nothing is left running" none_left
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What is prefetched is there when it is said to be; every byte is right meanwhile.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
requires jq mkfifo
needs_userfaultfd

s=$tmp/stats.json
is() { # NAME CONDITION: of the statistics
    check "$1" jq -e "$2" "$s"
}

# Lets the VMM's wait=$tmp/go end when gmem-restore has written to descriptor 9.
listen_ready() {
    rm -f "$tmp/go" "$tmp/fifo"
    : >"$tmp/said"
    mkfifo "$tmp/fifo"
    (
        read -r line <"$tmp/fifo" || exit 0
        echo "$line" >"$tmp/said"
        : >"$tmp/go"
    ) &
    # shellcheck disable=SC2094
    exec 9>"$tmp/fifo"
}
ready() { # NAME STATUS WORD...: vmm, with --ready-fd 9
    listen_ready
    ready_options=$options
    options="$options --ready-fd 9 --stats $s"
    rm -f "$s"
    vmm "$@"
    options=$ready_options
    exec 9>&-
    wait
}
said() { [ "$(cat "$tmp/said")" = "$1" ]; }

mem='open={mem} pattern=2,12'

# Every byte, whatever is given when; all that is hot, or a part.
for chunk in 4096 65536 2097152; do
    for every in 1 3; do
        image "hot$chunk.$every" "$chunk" hot=$every ram=memfd,32,12,2
        for options in "" --no-background "--prefetch none" \
            "--prefetch none --no-background" "--prefetch all --threads 1" --eager; do
            # shellcheck disable=SC2086
            vmm "hot=$every, chunks of $chunk $options: read" 0 $mem map touch=4
            # shellcheck disable=SC2086
            vmm "hot=$every, chunks of $chunk $options: write" 0 $mem twice write=2 verify
        done
    done
done

image several 65536 hot=2 a=memfd,8,12,3 b=memfd,24,12,4 c=memfd,4,32,5
for options in "" "--prefetch none" "--prefetch all" --eager; do
    vmm "three regions $options" 0 \
        open='{mem:a}' pattern=3,12 map touch=2 \
        open='{mem:c}' pattern=5,32 map touch=2 \
        open='{mem:b}' pattern=4,12 map write=2 verify
done

image hot 65536 hot=3 ram=memfd,32,12,2
for options in "" "--prefetch all --no-background"; do
    for how in remove punch; do
        # shellcheck disable=SC2086
        vmm "$options $how while it is prefetched" 0 $mem map "race=$how,3,4" verify
        # shellcheck disable=SC2086
        vmm "$options $how before it is there" 0 $mem map "discard=$how,3" touch=4
    done
    # shellcheck disable=SC2086
    vmm "$options split into many VMAs" 0 $mem map split write=4 verify
    # shellcheck disable=SC2086
    vmm "$options unmapped, mapped again" 0 $mem map touch=2 unmap map verify
    # shellcheck disable=SC2086
    vmm "$options mapped in a child" 0 $mem fork map touch=2
done

# When it is said to be ready no fault needs what was prefetched.
listed=$((32 * 256 / 3))
options=--no-background
# shellcheck disable=SC2086
ready "mapped, then ready" 0 $mem map "wait=$tmp/go" touch=2 verify
check "one line was written" said ready
is "ready: no fault on a hot page" '.faults.hot == 0 and .prefetch.late == 0'
is "ready: they were all prefetched" ".pages.prefetched | . >= $listed - 1 and . <= $listed"
is "ready: when is told" '.times_ms.prefetched > 0 and .prefetch.ms > 0'
is "ready: not more was read for that" '.prefetch.bytes > 0 and .prefetch.bytes < .bytes_read'
# shellcheck disable=SC2086
ready "ready, then mapped" 0 "wait=$tmp/go" $mem map touch=2 verify
is "then mapped: no fault on a hot page" '.faults.hot == 0 and .prefetch.late == 0'
options="--no-background --prefetch all"
# shellcheck disable=SC2086
ready "all of it" 0 $mem map "wait=$tmp/go" touch=2 verify
is "all of it: no fault on what is stored" '.faults.stored == 0'
is "all of it: each page once" '.pages.prefetched + .pages.background == .pages.given - .pages.zero'

# Pages that are there before somebody maps them are mapped, not left to a fault each.
# shellcheck disable=SC2086
ready "prefetched, mapped in one go" 0 "wait=$tmp/go" $mem map sleep=500 touch=2
is "prefetched: no fault for what is there" '.faults.present * 20 < .pages.prefetched'
options="--prefetch none --no-background"
# shellcheck disable=SC2086
ready "nothing is to be prefetched" 0 $mem map "wait=$tmp/go" touch=2
check "that is said at once" said ready
is "none: nothing was" '.pages.prefetched == 0 and .prefetch == null'
options=--eager
# shellcheck disable=SC2086
ready "eagerly" 0 $mem "wait=$tmp/go" map touch=2
check "eagerly: said too" said ready

# A trace, of the same image and another.
options="--record $tmp/trace"
# shellcheck disable=SC2086
vmm "recorded" 0 $mem map touch=1
options="--prefetch trace=$tmp/trace --no-background"
# shellcheck disable=SC2086
ready "a trace of a hot image" 0 $mem map "wait=$tmp/go" touch=2 verify
is "trace: no fault on what is stored" '.faults.stored == 0 and .prefetch.late == 0'
is "trace: nor on zeros" '.faults.zero == 0'
image plain 4096 ram=memfd,32,12,2
# shellcheck disable=SC2086
ready "the same, of another image" 0 $mem map "wait=$tmp/go" touch=2 verify
is "another image: no fault on what is stored" '.faults.stored == 0'
image less 65536 ram=memfd,16,12,2
# shellcheck disable=SC2086
vmm "of an image that has less memory" 0 $mem map touch=2 verify
check "what is dropped is told" grep -q ' pages are not in ' "$err"
options="--prefetch trace=$tmp/none"
# shellcheck disable=SC2086
vmm "a trace that is not there" 1 $mem map
options="--prefetch trace=$image"
# shellcheck disable=SC2086
vmm "a trace that is none" 3 $mem map

# What the list was worth is known when touches are recorded: two of these four pages are hot.
image worth 65536 hot=2 ram=memfd,32,12,2
options="--record $tmp/worth --prefetch hot --stats $s"
# shellcheck disable=SC2086
vmm "recorded while it is prefetched" 0 $mem map pages=r0,r1,r2,w3
is "half of what was touched was on the list" '.prefetch.recall == 0.5'
is "two pages of the list were touched" '(.prefetch.precision * .prefetch.listed | round) == 2'
options="--prefetch hot --stats $s"
# shellcheck disable=SC2086
vmm "not recorded" 0 $mem map pages=r0,r1
is "then nobody knows" '.prefetch.recall == null and .prefetch.precision == null'

# How it is read.
for where in "$tmp" /var/tmp /dev/shm; do
    image=$(mktemp "$where/gmem-test-XXXXXX") || continue
    cp "$tmp/hot.gmem" "$image"
    for options in "--cold-io auto" "--cold-io direct" "--cold-io cached" \
        "--cold-io direct --eager" "--cold-io direct --prefetch all --threads 3"; do
        # shellcheck disable=SC2086
        vmm "$options, an image in $where" 0 $mem map touch=2 verify
    done
    rm "$image"
done

# Memory of the VMM's own, and huge pages.
image=$tmp/hot.gmem
for options in "--vmm handoff" "--vmm handoff --prefetch all --no-background"; do
    # shellcheck disable=SC2086
    vmm "$options" 0 own=memfd,32 pattern=2,12 map touch=2 verify
done
free=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 0)
if [ "$free" -ge 16 ]; then
    image huge 65536 hot=700 ram=hugetlb,32,12,7
    mem='open={mem} pattern=7,12'
    for options in "" "--prefetch all" "--prefetch none" --eager; do
        # shellcheck disable=SC2086
        vmm "huge pages $options" 0 $mem map touch=2 verify
    done
    options=--no-background
    # shellcheck disable=SC2086
    ready "huge pages, ready" 0 $mem map "wait=$tmp/go" touch=2 verify
    is "huge pages: those that are hot were prefetched" '.prefetch.late == 0'
    mem='open={mem} pattern=2,12'
else
    skip "huge pages" "16 free ones of 2 MiB are needed, there are $free"
fi

# What is damaged stops the VMM, and is named; nobody is told that it is ready.
image damaged 65536 hot=3 ram=memfd,32,12,2
printf 'XXXXXXXXXXXXXXXX' | dd of="$image" bs=1 seek=3000 conv=notrunc 2>/dev/null
options=
# shellcheck disable=SC2086
ready "a damaged hot chunk" 3 $mem map forever
check "it is named" grep -Eq 'damaged.gmem: hot pages: chunk at 0: record at byte 128' "$err"
check "the VMM was stopped" grep -q 'the VMM was stopped' "$err"
check "nothing was said" said ""
options=--eager
# shellcheck disable=SC2086
vmm "a damaged hot chunk, eagerly" 3 $mem map touch=1

# Hot pages that are not those of the index.
image lying 65536 hot=3,lie ram=memfd,32,12,2
for options in "" "--prefetch none" "--prefetch all" --eager; do
    # shellcheck disable=SC2086
    vmm "a list that lies $options" 3 $mem map forever
    check "that is told" grep -q 'is hot, and not among the hot pages' "$err"
done

# Killed while it goes on.
image big 65536 hot=2 ram=memfd,512,20,2
options="--prefetch all --no-background"
# shellcheck disable=SC2086
vmm "the VMM dies meanwhile" 7 open='{mem}' pattern=2,20 map exit=7
# shellcheck disable=SC2086
listen_ready
# shellcheck disable=SC2086
gmem-restore $options --ready-fd 9 "$image" -- \
    vmm-touch open='{mem}' pattern=2,20 map "pid=$tmp/pid" forever 9>&9 &
killed=$!
exec 9>&-
await test -s "$tmp/pid"
kill -KILL $killed
wait
check "gmem-restore is killed: the VMM ends, too" await gone "$(cat "$tmp/pid")"

# Wrong usage.
options="--prefetch some"
vmm "prefetch what?" 2 x
options="--prefetch trace="
vmm "no trace" 2 x
options="--cold-io warm"
vmm "read how?" 2 x
options="--ready-fd 9"
vmm "a descriptor that is not open" 2 x
options="--ready-fd 2"
vmm "a descriptor of everybody's" 2 x
exec 8</dev/null
options="--ready-fd 8"
vmm "a descriptor that cannot be written" 2 x
exec 8<&-
image plain 65536 ram=memfd,4,12,2
options="--prefetch hot"
vmm "hot pages that are not there" 2 vmm-touch "{mem}"
exec 7>"$tmp/seven"
t "not inherited" 1 gmem-restore --ready-fd 7 --prefetch none "$image" -- \
    sh -c 'test -e /proc/self/fd/7' '{mem}'
exec 7>&-
check "but written to" grep -qx ready "$tmp/seven"

check "nothing is left running" none_left
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Images that are damaged, cut short or replaced while they are served: never a wrong byte, never
# zeros in place of a page, never a hang.  --on-error poison and stop.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
requires jq
needs_userfaultfd
patience=${GMEM_TEST_PATIENCE:-240}

# spoil HOW PAGE: a copy of the image that is damaged; $bad are the pages that are lost.
spoil() {
    cp "$good" "$tmp/bad.gmem"
    image=$tmp/bad.gmem
    bad=$(spoil-image "$image" "$1" "$2") || exit 99
}
# The page server of the gmem-restore that serves this test's image.
page_server() {
    for p in /proc/[0-9]*; do
        [ "$(cat "$p/comm" 2>/dev/null)" = gmem-page-serve ] || continue
        for fd in "$p"/fd/*; do
            [ "$(readlink "$fd" 2>/dev/null)" != "$image" ] || {
                echo "${p#/proc/}"
                return
            }
        done
    done
    return 1
}
count() { echo "$1" | tr ',' '\n' | grep -c '[0-9]'; }
mem='open={mem} pattern=5,10'

image good 65536 hot=7 ram=memfd,16,10,5
good=$image
# shellcheck disable=SC2086
vmm "the image is good" 0 $mem bus map touch=2 poisoned=none

spoil frame 289
# shellcheck disable=SC2086
vmm "damage that a fault meets: stopped" 3 $mem map verify forever
check "and it is said" grep -Eq 'bad.gmem: ram: .*; the VMM was stopped' "$err"

# Can this kernel do it?
spoil frame 129
options="--on-error poison"
# shellcheck disable=SC2086
timeout 60 gmem-restore $options "$image" -- vmm-touch $mem bus map verify 2>"$tmp/why"
if grep -q 'cannot poison' "$tmp/why"; then
    can=
else
    can=1
fi

# ---- stop ----

for how in frame sums hot-frame hot-sums node; do
    # Page 129 lies in its chunk, 132 in the hot section.
    case $how in hot-*) page=132 ;; *) page=129 ;; esac
    spoil ${how#hot-} $page
    for options in "" "--on-error stop" "--no-background --on-error=stop" "--prefetch all"; do
        # shellcheck disable=SC2086
        vmm "$how is damaged, ${options:-default}: stopped" 3 $mem map verify forever
        check "file, region and place are told" grep -Eq 'bad.gmem: (ram|hot pages): ' "$err"
        check "no wrong byte was seen" lacks MISMATCH "$err"
    done
    options=--eager
    # shellcheck disable=SC2086
    vmm "$how is damaged, --eager: it is not started" 3 $mem map verify
    check "file, region and place are told" grep -Eq 'bad.gmem: (ram|hot pages): ' "$err"
done

# ---- poison ----

if [ -z "$can" ]; then
    skip "--on-error poison" "$(cat "$tmp/why")"
    done_testing
fi

for how in frame sums hot-frame hot-sums node; do
    # Page 129 lies in its chunk, 132 in the hot section.
    case $how in hot-*) page=132 ;; *) page=129 ;; esac
    spoil ${how#hot-} $page
    check "$how: some pages are lost, and not all" test "$(count "$bad")" -gt 0 -a "$(count "$bad")" -lt 4000
    for more in "--no-background" "" "--prefetch all" "--prefetch none" "--engine map-continue"; do
        options="--on-error poison $more --stats $tmp/stats"
        # shellcheck disable=SC2086
        # Where the index is, hot pages are found without it by who prefetches.
        case $how in
        node)
            vmm "$how is damaged, poison $more" 0 $mem bus map touch=4 verify "poisoned-in=$bad"
            ;;
        *)
            vmm "$how is damaged, poison $more" 0 $mem bus map touch=4 verify "poisoned=$bad"
            check "each counts once" \
                test "$(jq .pages.poisoned "$tmp/stats")" -eq "$(count "$bad")"
            ;;
        esac
        check "file, region and place are told" grep -Eq 'bad.gmem: (ram|hot pages): ' "$err"
        check "in a few lines" test "$(wc -l <"$err")" -lt 25
    done
done
spoil sums 289
options="--on-error poison"
# shellcheck disable=SC2086
{
    vmm "mapped twice: both" 0 $mem bus twice touch=4 verify "poisoned=$bad"
    vmm "mapped again later" 0 $mem bus map touch=2 map verify "poisoned=$bad"
    vmm "unmapped and mapped again" 0 $mem bus map touch=2 unmap map verify "poisoned=$bad"
    vmm "MADV_DONTNEED takes the markers away, not the poison" 0 \
        $mem bus map touch=2 dontneed verify "poisoned=$bad"
    vmm "in pieces" 0 $mem bus pieces split touch=4 verify "poisoned=$bad"
    vmm "who is not prepared gets SIGBUS" 135 $mem map verify
}

# What is poisoned is so for the next page server, too.
# shellcheck disable=SC2086
timeout -k 5 "$patience" gmem-restore $options --no-background "$image" -- vmm-touch $mem bus \
    map touch=2 "poisoned=$bad" say=touched wait="$tmp/killed" dontneed verify map verify \
    "poisoned=$bad" >"$out" 2>"$err" </dev/null &
vmm=$!
check "pages are poisoned" await grep -q touched "$out"
kill -KILL "$(page_server)"
: >"$tmp/killed"
wait $vmm
check "another page server keeps to what is poisoned" test $? -eq 0

# When all the rest is there it is said, and nothing is unregistered.
spoil frame 129
options="--on-error poison --prefetch none --stats $tmp/stats"
# shellcheck disable=SC2086
timeout -k 5 "$patience" gmem-restore $options "$image" -- vmm-touch $mem bus map \
    wait="$tmp/go" verify "poisoned=$bad" >"$out" 2>"$err" </dev/null &
vmm=$!
check "the rest comes behind, and it is said that some is missing" \
    await grep -q 'all memory is there but for' "$err"
: >"$tmp/go"
wait $vmm
check "and what is missing is poisoned then" test $? -eq 0
check "the statistics say so" test "$(jq .pages.left "$tmp/stats")" -ge "$(count "$bad")"
check "and that it was never complete" jq -e '.times_ms.complete == null' "$tmp/stats"

# What is discarded is zeros, readable or not.
options="--on-error poison"
# shellcheck disable=SC2086
vmm "what is discarded is zeros" 0 $mem bus map discard=remove,1 verify poisoned=none

# ---- the file changes while it is served ----

# live NAME WORD...: a VMM that goes on as soon as $tmp/go is there; served lazily.
live() {
    rm -f "$tmp/go" "$tmp/pid"
    # shellcheck disable=SC2086
    timeout -k 5 "$patience" gmem-restore --no-background --prefetch none $options "$image" \
        -- vmm-touch $mem bus map pid="$tmp/pid" wait="$tmp/go" "$@" >"$out" 2>"$err" </dev/null &
    vmm=$!
    await test -e "$tmp/pid"
}
# lived NAME STATUS: lets it go on to its end.
lived() {
    : >"$tmp/go"
    wait "$vmm"
    live_status=$?
    check "$1" test "$live_status" -eq "$2"
    [ "$live_status" -eq "$2" ] || sed 's/^/# /' "$err"
    check "$1: no wrong byte" lacks MISMATCH "$err"
}
fresh() {
    rm -f "$tmp/bad.gmem"
    cp "$good" "$tmp/bad.gmem"
    image=$tmp/bad.gmem
}

for options in "--on-error stop" "--on-error poison"; do
    fresh
    live touch=2 verify poisoned=none
    cp "$good" "$tmp/other.gmem"
    dd if=/dev/zero of="$tmp/other.gmem" bs=1000 count=500 conv=notrunc 2>/dev/null
    mv "$tmp/other.gmem" "$image"
    lived "another file takes its name, $options: the old one is read" 0

    fresh
    live touch=2 verify poisoned=none
    rm "$image"
    lived "it is deleted, $options: it is read all the same" 0
done

options="--on-error stop"
fresh
live touch=2 verify
: >"$image"
lived "truncated to nothing: stopped" 3
check "where, and how much, is told" \
    grep -Eq 'bad.gmem: .*ends at byte [0-9]+ or before, [0-9]+ bytes wanted at [0-9]+; the VMM was' "$err"

options="--on-error poison"
fresh
live touch=4 verify poisoned-in="$(seq -s, 0 4095)"
bad=$(spoil-image "$image" cut 289)
lived "truncated in the middle: what is gone is poisoned" 0
check "some pages are gone" test "$(count "$bad")" -gt 0
check "it is told" grep -q 'ends at byte' "$err"

# Each byte is another: checksums find that.
options="--on-error stop"
fresh
live touch=2 verify
tr '\000-\377' '\001-\377\000' <"$good" >"$tmp/other"
cat "$tmp/other" >"$image"
lived "written over in place: stopped" 3

# ---- a file system that hangs ----

# hang SECONDS: from now on reads of the image take so long.
hang() {
    server=$(page_server) || return 1
    strace -f -qq -o "$tmp/trace" -P "$image" \
        -e inject=pread64,preadv2:delay_enter=$(($1 * 1000000)) -p "$server" 2>"$tmp/why" &
    tracer=$!
    await grep -q '^TracerPid:.[1-9]' "/proc/$server/status"
}
options="--on-error poison --io-timeout 2"
if command -v strace >/dev/null; then
    fresh
    live touch=1 verify
    if hang 600; then
        began=$(date +%s)
        lived "a read that hangs: stopped" 1
        check "it is told which" \
            grep -Eq 'bad.gmem: [0-9]+ bytes at [0-9]+ are being read .* 2 s .*; the VMM was' "$err"
        check "soon" test $(($(date +%s) - began)) -lt 60
        kill -KILL "$tracer"
        wait "$tracer" 2>/dev/null

        live pages=r129,r289 poisoned=none
        hang 1
        lived "reads that take a second: slow, and right" 0
        kill -KILL "$tracer" 2>/dev/null
        wait "$tracer" 2>/dev/null
    else
        skip "a read that hangs" "strace can't: $(cat "$tmp/why")"
        kill -KILL $vmm
    fi
else
    skip "a read that hangs" "needs strace"
fi

# ---- where it cannot be done ----

options="--on-error poison --eager"
# shellcheck disable=SC2086
vmm "--eager has nothing to poison" 2 $mem map verify
options="--on-error zeros"
# shellcheck disable=SC2086
vmm "there is no other way" 2 $mem map verify

check "nothing is left behind" none_left
done_testing

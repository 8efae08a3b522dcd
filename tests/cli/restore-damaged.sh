#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Images that are damaged, cut short or replaced while they are served: never a wrong byte, never
# zeros in place of a page, never a hang.  --on-error poison and stop.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
requires jq
needs_userfaultfd
patience=${GMEM_TEST_PATIENCE:-60}

# spoil HOW PAGE: a copy of the image that is damaged; $bad are the pages that are lost.
spoil() {
    cp "$good" "$tmp/bad.gmem"
    image=$tmp/bad.gmem
    bad=$(spoil-image "$image" "$1" "$2") || exit 99
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

# ---- where it cannot be done ----

options="--on-error poison --eager"
# shellcheck disable=SC2086
vmm "--eager has nothing to poison" 2 $mem map verify
options="--on-error zeros"
# shellcheck disable=SC2086
vmm "there is no other way" 2 $mem map verify

check "nothing is left behind" none_left
done_testing

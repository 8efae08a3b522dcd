# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What the tests with real VMMs share; sources vmm-cli.sh.  The guest is tests/guest/tiny.
#
#   real_vmm NAME VARIABLE   skips all unless VARIABLE names programs: more than one is allowed
#   call SOCKET METHOD PATH [JSON]   asks the VMM; prints its answer
#   says FILE PATTERN        soon
#   ticks FILE N             soon as many, and none of them wrong
#   ticks_on FILE N          soon so many more
#   right FILE [RESTORED...] all that was printed is what it has to be; see tests/guest/tiny/ticks.c
#   goes_on FILE RESTORED    RESTORED begins where FILE ends
#   nothing_left FOLDER      the folder is empty
#
# A KVM that emulates each instruction makes some ten ticks a second, others thousands.

. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"

tiny_guest=${abs_top_builddir:?}/tiny-guest
unset RUST_BACKTRACE # what makes one may be forbidden by the VMM's own filters

real_vmm() {
    eval "real_vmms=\$$2"
    # shellcheck disable=SC2154
    [ -n "$real_vmms" ] || skip_all "no $1 here: $2 names none"
    requires curl
    [ -x "$tiny_guest" ] || skip_all "the tiny guest is built for x86-64 only"
    if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
        skip_all "no usable /dev/kvm"
    fi
    needs_userfaultfd
}

call() {
    if [ -n "$4" ]; then
        curl -sS -f -m 30 --unix-socket "$1" -X "$2" -H 'Content-Type: application/json' \
            -d "$4" "http://localhost$3"
    else
        curl -sS -f -m 30 --unix-socket "$1" -X "$2" "http://localhost$3"
    fi
}

# Up to a minute.
patiently() {
    for _ in 1 2 3 4 5; do
        await "$@" && return 0
    done
    await "$@"
}

says() { patiently grep -aEq "$2" "$1"; }
ticks_there() { [ "$(grep -ac '^tick' "$1")" -ge "$2" ]; }
settled() { ticks_there "$1" "$2" || grep -aq BAD "$1"; }
ticks() { patiently settled "$1" "$2" && right "$1"; }
ticks_on() {
    ticks_wanted=$(($(grep -ac '^tick' "$1") + $2))
    patiently settled "$1" "$ticks_wanted" && ticks_there "$1" "$ticks_wanted"
}
right() { tiny-ticks "$@"; }
last_tick() { sed -n 's/^tick \([0-9]*\) ok [0-9a-f]\{8\}.*$/\1/p' "$1" | tail -n 1; }
first_tick() { sed -n 's/^tick \([0-9]*\) ok [0-9a-f]\{8\}.*$/\1/p' "$1" | head -n 1; }
goes_on() {
    goes_from=$(last_tick "$1") goes_to=$(first_tick "$2")
    echo "$goes_to after $goes_from"
    [ "$goes_to" -gt "$goes_from" ] && [ "$goes_to" -le $((goes_from + 2)) ]
}
nothing_left() { [ -z "$(ls -A "$1")" ]; }

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap: the VM runs again before the image is complete.  Notes make the end of the image
# larger than a pipe, and its reader waits just before that.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
. "$abs_top_srcdir/tests/lib/vmm-server.sh"

text=$(printf '%060000d' 0)
mkfifo "$tmp/pipe"
# Saves into the pipe, and reads it but for the last 120000 bytes; $snap is still at work then.
save_most() { # OPTION...
    gmem-snap -q --annotate "a=$text" --annotate "b=$text" --annotate "c=$text" "$@" \
        -o "$tmp/whole" -f || return 1
    gmem-snap -q --annotate "a=$text" --annotate "b=$text" --annotate "c=$text" "$@" \
        -o - >"$tmp/pipe" 2>"$err" &
    snap=$!
    exec 3<"$tmp/pipe"
    head -c $(($(wc -c <"$tmp/whole") - 120000)) <&3 >"$tmp/most"
}
working() { grep -q '^State:[[:space:]]*[RSD]' "/proc/$snap/status" 2>/dev/null; }
finish() { # NAME
    check "$1: the image was not complete" working
    cat <&3 >>"$tmp/most"
    exec 3<&-
    wait "$snap"
    check "$1: it is now" test $? -eq 0
    t "$1: and whole" 0 gmem-inspect verify "$tmp/most"
}

serve "ram=9:$tmp/a" || skip_all "vmm-server does not run"
for mode in "" --pause-less; do
    : >"$asked"
    # shellcheck disable=SC2086
    if save_most --handoff "$sock" $mode; then
        : # of two: the second may not have been resumed yet
        resumed() { [ "$(grep -c RESUME "$asked")" -eq 2 ]; }
        check "--handoff $mode: the VM runs" soon resumed
        finish "--handoff $mode"
    else
        skip "--handoff $mode" "this machine cannot"
    fi
done
end

mkfifo "$tmp/held"
hold-memory memfd=9 >"$tmp/held" 2>"$tmp/hold-err" &
pid=$!
pids="$pids $pid"
read -r answer <"$tmp/held"
save_most --pid $pid --pause stop
runs() { grep -q '^State:[[:space:]]*[RS]' "/proc/$pid/status"; }
check "--pid: the process runs ($answer)" soon runs
finish "--pid"
done_testing

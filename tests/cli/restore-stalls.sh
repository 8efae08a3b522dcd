#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A file system that hangs, or a FIFO that nobody writes to, while the image or a trace is opened:
# never a hang without a message, and no VMM that waits for it.
. "${abs_top_srcdir:?}/tests/lib/storm.sh"
needs_userfaultfd
image b 65536 ram=memfd,4,10,5
image a 65536 hot=7 ram=memfd,16,10,5
make-trace "$image" "$tmp/trace" -r 1 50 || exit 99
mem='open={mem} pattern=5,10'
options="--io-timeout 1"

# ---- FIFOs ----

mkfifo "$tmp/fifo"
keep=$image image=$tmp/fifo
# shellcheck disable=SC2086
vmm "an image that is a FIFO without a writer" 1 say=started $mem map
check "is told" grep -q "fifo could not be opened and read within 1 s (--io-timeout)" "$err"
check "and no VMM was started" lacks started "$out"
t "the same with --listen" 1 timeout -k 5 "$patience" \
    gmem-restore --io-timeout 1 "$tmp/fifo" --listen "$tmp/socket"
check "is told, too" grep -q "fifo could not be opened and read within 1 s" "$err"
check "and there is no socket" test ! -e "$tmp/socket"
image=$keep

options="--io-timeout 1 --prefetch trace=$tmp/fifo"
# shellcheck disable=SC2086
vmm "a trace that is a FIFO without a writer" 1 say=started $mem map
check "is told" grep -q "fifo could not be opened and read within 1 s (--io-timeout)" "$err"
check "and no VMM was started" lacks started "$out"

# One that is written in time is read.
(sleep 0.3 && cat "$tmp/trace" >"$tmp/fifo") &
options="--io-timeout 30 --prefetch trace=$tmp/fifo"
# shellcheck disable=SC2086
vmm "one that is written is read" 0 $mem map verify

# ---- a file system ----

mkdir "$tmp/files" "$tmp/mnt" "$tmp/control"
# Who hangs in it can't be killed before it answers.
trap 'rm -f "$tmp/control"/*; vmm_clean' EXIT
mv "$tmp/a.gmem" "$tmp/b.gmem" "$tmp/trace" "$tmp/files"
stall-fs "$tmp/files" "$tmp/mnt" "$tmp/control" </dev/null >"$out" 2>"$err"
case $? in
0) ;;
77)
    skip "a file system that hangs" "$(cat "$err")"
    done_testing
    ;;
*) exit 99 ;;
esac
image=$tmp/mnt/a.gmem
options="--io-timeout 30 --prefetch trace=$tmp/mnt/trace"
# shellcheck disable=SC2086
vmm "while it answers all is well" 0 $mem map verify

# It may take 20 s.
told() { await grep -Eq "$1" "$err" || await grep -Eq "$1" "$err" || await grep -Eq "$1" "$err"; }

# stalls NAME MESSAGE WORD...: it hangs until the message has come.
stalls() {
    name=$1 message=$2
    shift 2
    : >"$err"
    # shellcheck disable=SC2086
    timeout -k 5 "$patience" gmem-restore $options "$image" -- vmm-touch say=started $mem "$@" \
        >"$out" 2>"$err" </dev/null &
    vmm=$!
    check "$name: is told" told "$message"
    rm -f "$tmp/control"/*
    wait $vmm
    check "$name: status" test $? -eq 1
}
options="--io-timeout 1"
late='could not be opened and read within 1 s .--io-timeout.: the file system hangs'
: >"$tmp/control/open"
stalls "open" "a.gmem $late"
check "no VMM" lacks started "$out"
: >"$tmp/control/read"
stalls "the header" "a.gmem $late"
check "no VMM" lacks started "$out"
echo $(($(wc -c <"$tmp/files/a.gmem") - 1)) >"$tmp/control/read"
stalls "the trailer" "a.gmem $late"
check "no VMM" lacks started "$out"

# The page server has it open, and looks into the index when memory is added.
image=$tmp/mnt/b.gmem
for how in "--prefetch none" --eager; do
    options="--io-timeout 1 $how"
    echo 4096 $(($(wc -c <"$tmp/files/b.gmem") - 4096)) >"$tmp/control/read"
    stalls "the index, $how" 'b.gmem: [0-9]+ bytes at [0-9]+ are being read .* 1 s .*hangs$'
    check "no VMM" lacks started "$out"
done

image=$tmp/files/a.gmem
options="--io-timeout 1 --prefetch trace=$tmp/mnt/trace"
for how in open read; do
    : >"$tmp/control/$how"
    stalls "a trace, $how" "trace $late"
    check "no VMM" lacks started "$out"
done
image=$tmp/mnt/a.gmem

# While it serves.
launch() { # WORD...
    rm -f "$tmp/go" "$tmp/pid"
    # shellcheck disable=SC2086
    gmem-restore $options --no-background --prefetch none "$image" -- vmm-touch $mem map \
        pages=r1 pid="$tmp/pid" wait="$tmp/go" "$@" >"$out" 2>"$err" </dev/null &
    watch_over
    await test -s "$tmp/pid"
}
options="--io-timeout 1"
stalls_late() { # NAME WHAT MESSAGE
    launch verify forever
    : >"$tmp/control/$2"
    : >"$tmp/go"
    check "$1: is told" await grep -Eq "$3" "$err"
    check "$1: the VMM is gone" await gone "$(cat "$tmp/pid")"
    rm -f "$tmp/control"/*
    finish
    check "$1: status" test "$status" -eq 1
    check "$1: no wrong byte" lacks MISMATCH "$err"
}
stalls_late "reads of pages" read 'being read for more than 1 s .*; the VMM was stopped'

# A page server that is killed while it reads neither ends nor hangs up.
options="--io-timeout 60"
launch verify
: >"$tmp/control/read"
: >"$tmp/go"
sleep 0.5
kill -KILL "$(page_server "$restore")"
check "killed while it reads: another one goes on" \
    told 'was killed, and does not end: its file hangs; another one goes on'
rm -f "$tmp/control"/*
finish
check "and when the file can be read, to the end" test "$status" -eq 0

# One that stands still was made to.
launch verify
server=$(page_server "$restore")
kill -STOP "$server"
: >"$tmp/go"
check "SIGSTOP of the page server: that is told" \
    await grep -q "the page server, process $server, is stopped" "$err"
sleep 2.5
check "once" test "$(grep -c 'is stopped' "$err")" -eq 1
kill -CONT "$server"
finish
check "and it goes on" test "$status" -eq 0

umount "$tmp/mnt"
check "nothing is left behind" none_left
done_testing

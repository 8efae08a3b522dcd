#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# kill -9 at random moments: no VMM outlives gmem-restore, none sees a wrong
# byte, nothing is left behind.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd
find_page_servers
mib=96
[ -z "$GMEM_TEST_BIG" ] || mib=512
image a 65536 ram=memfd,$mib,20,2
mem='open={mem} pattern=2,20'
seed=$(($(date +%s) % 30000))
echo "# random numbers begin at $seed"

random() { # N: 0 to N - 1, into $r
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    r=$((seed / 8 % $1))
}
TMPDIR=$tmp/temporary
mkdir "$TMPDIR"
export TMPDIR

# Starts it; the process of gmem-restore is $restore, what it and the VMM say is in $tmp/says.
launch() { # OPTIONS WORD...
    launch_options=$1
    shift
    rm -f "$tmp/pid" "$tmp/says"
    # shellcheck disable=SC2086
    gmem-restore $launch_options "$image" -- vmm-touch "pid=$tmp/pid" $mem "$@" >"$tmp/says" 2>&1 &
    restore=$!
}
finish() { # the status of gmem-restore goes to $status
    wait "$restore" 2>/dev/null
    status=$?
}

# NAME TIMES OPTIONS WORD...: gmem-restore is killed.
kill_server() {
    name=$1 times=$2
    shift 2
    survivors=0 wrong=0 started=0 i=0
    while [ $i -lt "$times" ]; do
        i=$((i + 1))
        launch "$@"
        random "${GMEM_TEST_KILL_MS:-200}"
        sleep "$((r / 1000)).$(printf %03d $((r % 1000)))"
        kill -9 "$restore" 2>/dev/null
        finish
        # Nobody may be there a moment later; the kernel kills who has the memory.
        grep -q MISMATCH "$tmp/says" && wrong=$((wrong + 1))
        [ ! -e "$tmp/pid" ] || started=$((started + 1))
        await none_left && continue
        survivors=$((survivors + 1))
        break
    done
    check "$name: no VMM is left" test $survivors -eq 0
    check "$name: no wrong byte" test $wrong -eq 0
    check "$name: VMMs had been started ($started of $times)" test $started -gt 0
}
kill_server "kill -9 of gmem-restore" 20 "" map write=2 verify forever
kill_server "the same without background" 10 --no-background map touch=2 forever
kill_server "the same, the VMM is a daemon" 10 --no-background daemon map write=2 verify forever
kill_server "the same, in the kernel on the VMM's behalf" 8 --no-background map syscalls forever

# A VMM with its own memory.
kind=${GMEM_TEST_OWN:-memfd} served=$mem
mem="own=$kind,$mib pattern=2,20"
kill_server "own $kind: kill -9 of gmem-restore" 20 "--vmm handoff" map write=2 verify forever
kill_server "own $kind: the same without background" 10 "--vmm handoff --no-background" \
    map touch=2 forever
kill_server "own $kind: the same, in the kernel on the VMM's behalf" 8 \
    "--vmm handoff --no-background" map syscalls forever
mem=$served

launch "" daemon map touch=2 "say=done" forever
await grep -q 'done' "$tmp/says"
check "the daemon is served, and waited for" kill -0 "$restore"
kill -9 "$restore"
finish
check "it dies with gmem-restore" await gone "$(cat "$tmp/pid")"

launch "" daemon map "say=done" exit=5
finish
check "the status is the daemon's" test "$status" -eq 5
launch "" daemon sleep=300 map touch=1 "say=done" exit=6
finish
check "also when it maps the memory late" test "$status" -eq 6

bad=0 i=0
while [ $i -lt 12 ]; do
    i=$((i + 1))
    launch "" map write=2 verify forever
    random 100
    await test -s "$tmp/pid"
    sleep "0.$(printf %03d "$r")"
    kill -9 "$(cat "$tmp/pid")"
    finish
    [ "$status" -eq 137 ] || bad=$((bad + 1))
    # It may have been too early to map anything, which is said.
    ! grep -v 'without having mapped' "$tmp/says" | grep -q . || bad=$((bad + 1))
done
check "kill -9 of the VMM: gmem-restore dies by SIGKILL too, silently" test $bad -eq 0

# A server that stands still holds the VMM up, and nothing else happens.
launch --no-background map write=2 verify exit=0
await test -s "$tmp/pid"
kill -STOP "$restore"
sleep 0.3
kill -CONT "$restore"
finish
check "SIGSTOP and SIGCONT of gmem-restore" test "$status" -eq 0
launch --no-background map write=2 verify syscalls exit=0
await test -s "$tmp/pid"
i=0
while [ $i -lt 10 ]; do
    i=$((i + 1))
    kill -STOP "$(cat "$tmp/pid")" 2>/dev/null
    sleep 0.01
    kill -CONT "$(cat "$tmp/pid")" 2>/dev/null
done
finish
check "SIGSTOP and SIGCONT of the VMM" test "$status" -eq 0

check "nothing is left running" none_left
# Whoever is killed just there may leave an empty folder.
check "no file is left in the folder for temporary files" \
    test -z "$(find "$TMPDIR" -mindepth 1 ! -type d)"
check "and hardly a folder" test "$(find "$TMPDIR" -mindepth 1 | wc -l)" -le 3
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The page server dies, stands still, is replaced: the VM pauses, and never sees a wrong byte.
. "${abs_top_srcdir:?}/tests/lib/storm.sh"
needs_userfaultfd
requires jq
mib=64
image a 65536 ram=memfd,$mib,40,2
mem='open={mem} pattern=2,40'
stats=$tmp/stats.json

launch() { # OPTIONS WORD...
    launch_options=$1
    shift
    rm -f "$tmp/pid" "$tmp/says"
    # shellcheck disable=SC2086
    gmem-restore $launch_options "$image" -- \
        vmm-touch "pid=$tmp/pid" $mem "$@" >"$tmp/says" 2>&1 &
    watch_over
}

# NAME TIMES OPTIONS WORD...; GMEM_TEST_STORM=N: N times as often
storm() {
    name=$1 times=$(($2 * ${GMEM_TEST_STORM:-1}))
    shift 2
    i=0 wrong=0 bad=0 before=$kills
    while [ $i -lt "$times" ]; do
        i=$((i + 1))
        launch "$@" exit=7
        kill_servers
        finish
        ! grep -q MISMATCH "$tmp/says" || wrong=$((wrong + 1))
        [ "$status" -eq 7 ] || { bad=$((bad + 1)) && sed 's/^/# /' "$tmp/says" | tail -n 3; }
    done
    check "$name: no wrong byte ($((kills - before)) kills)" test $wrong -eq 0
    check "$name: every VMM ends as it would" test $bad -eq 0
}
storm "kill -9 of the page server" 3 "" map write=2 verify syscalls
storm "the same without background" 8 --no-background map touch=2 write=2 verify syscalls
storm "the same, prefetched" 3 "--prefetch all" map touch=2 write=2 verify
storm "two views" 3 --no-background twice write=3 verify
storm "pages are discarded meanwhile" 4 --no-background map race=remove,7,2 verify
storm "and punched" 4 "" map race=punch,5,2 verify
storm "a daemon" 2 --no-background daemon map write=2 verify
# shellcheck disable=SC2086
storm "a new program" 2 --no-background exec $mem map write=2 verify
storm "eager" 2 --eager map write=2 verify
served=$mem
mem="own=${GMEM_TEST_OWN:-memfd},$mib pattern=2,40"
storm "own memory" 4 "--vmm handoff --no-background" map touch=2 write=2 verify
storm "own memory, in the background too" 3 "--vmm handoff" map write=2 verify
mem=$served
check "the page server was killed, often ($kills times)" test $kills -gt 60

# How often is told.
launch "--no-background --stats $stats" map write=2 verify "say=done" "wait=$tmp/go" exit=7
await grep -q 'done' "$tmp/says"
kill -9 "$(page_server "$restore")"
await grep -q 'another one goes on' "$tmp/says"
check "a message tells of it" grep -q 'killed by signal 9 (Killed); another one goes on' "$tmp/says"
touch "$tmp/go"
finish
check "and the VMM ends as it would" test "$status" -eq 7
check "the statistics count it" jq -e '.restarts == 1' "$stats"

# One that dies at once, again and again.
cat >"$tmp/dies" <<'END'
#!/bin/sh
kill -KILL $$
END
printf '#!/bin/sh\nexit 3\n' >"$tmp/ends"
chmod +x "$tmp/dies" "$tmp/ends"
rm -f "$tmp/go"
t "a page server that ends at once: no VMM" 1 timeout -k 5 "$patience" \
    env GMEM_PAGE_SERVER="$tmp/ends" gmem-restore "$image" -- touch "$tmp/started" '{mem}'
check "it says so" grep -q 'died 10 times in a row; the last time: .*ended with status 3' "$err"
check "and the VMM was not started" test ! -e "$tmp/started"
t "one that is not there" 1 env GMEM_PAGE_SERVER="$tmp/nothing" gmem-restore "$image" -- true '{mem}'
check "is named" grep -q "start the page server $tmp/nothing" "$err"

# One that is not needed, since there is nothing to be served.
printf '#!/bin/sh\n"%s"\necho $? >"%s"\n' "$GMEM_PAGE_SERVER" "$tmp/ended" >"$tmp/notes"
chmod +x "$tmp/notes"
t "no image" 1 env GMEM_PAGE_SERVER="$tmp/notes" gmem-restore "$tmp/nothing" -- true '{mem}'
check "the page server ends as it should" grep -qx 0 "$tmp/ended"

# The real one at first, so that there is a VM; then one that dies.
real=$GMEM_PAGE_SERVER
GMEM_PAGE_SERVER=$tmp/there/gmem-page-server
mkdir "$tmp/there"
turn() { # another program in its place
    ln -s "$1" "$tmp/there/new"
    mv -f "$tmp/there/new" "$GMEM_PAGE_SERVER"
}
turn "$real"
launch --no-background map touch=1 "say=done" forever
await grep -q 'done' "$tmp/says"
turn "$tmp/dies"
kill -9 "$(page_server "$restore")"
finish
check "page servers that die at once: the VM is stopped" test "$status" -eq 1
check "and it is told why" grep -q \
    'died 10 times in a row; the last time: .*signal 9 (Killed); the VMM was stopped' \
    "$tmp/says"
check "it is gone" gone "$(cat "$tmp/pid")"

# Another image has been written over the one that was opened: the next page server refuses it.
turn "$real"
kept=$image
cp "$kept" "$tmp/over.gmem"
image other 65536 ram=memfd,$mib,40,3
cp "$image" "$tmp/other.gmem"
image=$tmp/over.gmem
rm -f "$tmp/go"
launch --no-background map "say=mapped" "wait=$tmp/go" verify exit=7
await grep -q mapped "$tmp/says"
cat "$tmp/other.gmem" >"$tmp/over.gmem"
kill -9 "$(page_server "$restore")"
: >"$tmp/go"
finish
check "another image in its place: the VM is stopped" test "$status" -ne 7
check "it is told" grep -q 'over.gmem: another image: its root hash is' "$tmp/says"
check "no wrong byte" sh -c "! grep -q MISMATCH '$tmp/says'"
image=$kept
rm -f "$tmp/go"

# SIGHUP: a new one in the place of the old one.
turn "$real"
launch --no-background map touch=2 write=2 verify syscalls exit=7
await test -s "$tmp/pid"
hups=0
while runs; do
    random 40
    sleep "0.$(printf %03d $((r + 3)))"
    kill -HUP "$restore" 2>/dev/null && hups=$((hups + 1))
done
finish
check "SIGHUP again and again ($hups): no wrong byte, the same status" test "$status" -eq 7
launch "--no-background --stats $stats" map touch=1 "say=done" "wait=$tmp/go" write=1 verify exit=7
await grep -q 'done' "$tmp/says"
old=$(page_server "$restore")
kill -HUP "$restore"
check "the old one is gone" await gone "$old"
await page_server "$restore"
check "there is a new one" test -n "$(page_server "$restore")"
turn "$tmp/ends"
old=$(page_server "$restore")
kill -HUP "$restore"
await grep -q 'the old one goes on' "$tmp/says"
check "a new one that does not start: that is told" grep -q 'the old one goes on' "$tmp/says"
check "and the old one goes on" test "$old" = "$(page_server "$restore")"
touch "$tmp/go"
finish
check "to the end" test "$status" -eq 7
check "one was replaced" jq -e '.restarts == 1' "$stats"
check "and all that was counted counts" jq -e '.pages.given > 10000' "$stats"
turn "$real"

# One that stands still holds the VM up, and nothing else happens.
launch --no-background map write=2 verify exit=7
await test -s "$tmp/pid"
pid=$(page_server "$restore")
kill -STOP "$pid"
sleep 0.3
check "SIGSTOP of the page server: the VM waits" kill -0 "$(cat "$tmp/pid")"
kill -CONT "$pid"
finish
check "SIGCONT: and goes on" test "$status" -eq 7
launch --no-background map "say=done" forever
await grep -q 'done' "$tmp/says"
pid=$(page_server "$restore")
kill -STOP "$pid"
kill -9 "$(cat "$tmp/pid")"
finish
check "the VMM ends while it stands still: so does gmem-restore" test "$status" -eq 137
check "and it is gone too" await gone "$pid"

# gmem-restore is killed.
launch --no-background map touch=1 "say=done" forever
await grep -q 'done' "$tmp/says"
pid=$(page_server "$restore")
vmm=$(cat "$tmp/pid")
kill -9 "$restore"
finish
check "kill -9 of gmem-restore: its VMM is gone" await gone "$vmm"
check "and its page server" await gone "$pid"

launch --no-background map touch=1 "say=done" forever
await grep -q 'done' "$tmp/says"
pid=$(page_server "$restore")
kill -STOP "$pid"
kill -9 "$restore"
finish
check "also one that stands still" await gone "$pid"

# Both, in either order, at once.
i=0 bad=0
while [ $i -lt 10 ]; do
    i=$((i + 1))
    launch --no-background map write=2 verify forever
    await test -s "$tmp/pid"
    random 60
    sleep "0.$(printf %03d "$r")"
    # shellcheck disable=SC2046
    if [ $((i % 2)) -eq 0 ]; then
        kill -9 "$restore" $(page_server "$restore") 2>/dev/null
    else
        kill -9 $(page_server "$restore") "$restore" 2>/dev/null
    fi
    finish
    ! grep -q MISMATCH "$tmp/says" || bad=$((bad + 1))
    await none_left || bad=$((bad + 1))
done
check "both at once: nobody is left, nobody saw a wrong byte" test $bad -eq 0

# Descriptors do not pile up.
launch --no-background map "say=done" "wait=$tmp/go2" touch=1 exit=7
await grep -q 'done' "$tmp/says"
fds() {
    # shellcheck disable=SC2012
    ls "/proc/$restore/fd" | wc -l
}
# shellcheck disable=SC2317
replaced() { [ "$(page_server "$restore")" != "$pid" ] && threads "$(page_server "$restore")"; }
again() {
    pid=$(page_server "$restore")
    kill -HUP "$restore"
    await replaced
}
again
n=$(fds)
i=0
while [ $i -lt 20 ]; do
    i=$((i + 1))
    again
done
check "20 replacements: as many descriptors as before" test "$(fds)" -le $((n + 1))
touch "$tmp/go2"
finish
check "and the VMM ends as it would" test "$status" -eq 7

# One that an image has taken over: it ends the restore, and nothing else.
if command -v python3 >"$tmp/o"; then
    GMEM_PAGE_SERVER=$abs_top_srcdir/tests/lib/hostile-page-server HOSTILE=$tmp/hostile
    export HOSTILE
    for how in garbage version hang-up open-garbage open-event open-huge odd endless \
        interrupted state event-fds failed type engine short long huge odd-reply fds many-fds; do
        echo $how >"$HOSTILE"
        rm -f "$tmp/started"
        timeout -k 5 "$patience" gmem-restore "$image" -- touch "$tmp/started" '{mem}' \
            >"$out" 2>"$err"
        got=$?
        check "hostile, $how: an error" test $got -ge 1 -a $got -le 6
        check "hostile, $how: no VMM" test ! -e "$tmp/started"
        check "hostile, $how: a line that can be read" sh -c \
            "grep -q '^gmem-restore: ' '$err' && ! LC_ALL=C grep -q '[^ -~]' '$err'"
    done
else
    skip "hostile page servers" "needs python3"
fi
check "nothing is left running" none_left
done_testing

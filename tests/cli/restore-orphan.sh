#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# --orphan wait: gmem-restore is killed, the VM waits, and somebody adopts it: never a wrong byte.
. "${abs_top_srcdir:?}/tests/lib/storm.sh"
needs_userfaultfd
# The search for leaks stops its process, which waits for ever if that is made to continue: as
# the kernel does when it was the child of one that is killed.
ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
export ASAN_OPTIONS
mib=64
image a 65536 ram=memfd,$mib,40,2
mem='open={mem} pattern=2,40'
place=$tmp/place

# gmem-restore --orphan wait: $restore, and its VMM's number in $tmp/pid as soon as it runs.
launch() { # OPTIONS WORD...
    launch_options=$1
    shift
    rm -f "$tmp/pid" "$tmp/says"
    # shellcheck disable=SC2086
    gmem-restore --orphan "wait=$place" $launch_options "$image" -- \
        vmm-touch "pid=$tmp/pid" $mem "$@" >"$tmp/says" 2>&1 &
    watch_over
}
# $restore is the adopter from now on.
adopt() {
    gmem-restore --adopt "$place" >>"$tmp/adopts" 2>&1 &
    watch_over
}
ppid_of() { sed -n 's/^PPid:[^0-9]*//p' "/proc/$1/status" 2>/dev/null; }
# Whoever serves it now for an adopter: a child of the keeper's.
supervisor() { # VMM
    keeper=$(ppid_of "$1")
    # shellcheck disable=SC2013
    for child in $(cat "/proc/$keeper/task/$keeper/children" 2>/dev/null); do
        [ "$(cat "/proc/$child/comm" 2>/dev/null)" != gmem-restore ] || echo "$child"
    done
}
# shellcheck disable=SC2317
none_serves() { [ -z "$(supervisor "$vmm")" ]; }
# shellcheck disable=SC2317
one_serves() { [ -n "$(supervisor "$vmm")" ]; }
# shellcheck disable=SC2317
waits() { grep -q 'waits for gmem-restore --adopt' "$tmp/says"; }
vmm_pid() { cat "$tmp/pid" 2>/dev/null; }

# Until it has ended, its gmem-restore and adopters are killed at random; each lives for longer.
kill_supervisors() {
    life=3
    while runs; do
        random 60
        sleep "0.$(printf %03d $((r + life)))"
        [ $life -gt 300 ] || life=$((life + 5))
        random 3
        target=$restore
        [ "$r" -ne 0 ] || [ ! -s "$tmp/pid" ] || target=$(supervisor "$(vmm_pid)")
        # shellcheck disable=SC2086
        kill -9 ${target:-$restore} 2>/dev/null || continue
        finish
        kills=$((kills + 1))
        [ -S "$place" ] || break
        adopt
    done
}
# NAME TIMES OPTIONS WORD...; GMEM_TEST_STORM=N: N times as often
storm() {
    name=$1 times=$(($2 * ${GMEM_TEST_STORM:-1}))
    shift 2
    i=0 wrong=0 bad=0 before=$kills runs=0
    : >"$tmp/adopts"
    while [ $i -lt "$times" ]; do
        i=$((i + 1))
        launch "$@" say=whole exit=7
        kill_supervisors
        finish
        ! grep -qs MISMATCH "$tmp/says" || wrong=$((wrong + 1))
        # Who was killed before it had started a VMM has left nothing.
        [ -s "$tmp/pid" ] || { await none_left && continue; }
        runs=$((runs + 1))
        await gone "$(vmm_pid)" && grep -q '^whole' "$tmp/says" && continue
        bad=$((bad + 1))
        sed 's/^/# /' "$tmp/says" "$tmp/adopts" | tail -n 8
    done
    check "$name: no wrong byte ($((kills - before)) kills, $runs VMMs)" test $wrong -eq 0
    check "$name: every VMM comes to its end" test $bad -eq 0
}
storm "kill -9" 4 "" map write=2 verify syscalls
storm "without background" 8 --no-background map touch=2 write=2 verify syscalls
storm "prefetched" 3 "--prefetch all" map touch=2 write=2 verify
storm "two views" 3 --no-background twice write=3 verify
storm "pages are discarded meanwhile" 4 --no-background map race=remove,7,2 verify
storm "and punched" 4 "" map race=punch,5,2 verify
storm "many requests" 4 --no-background map split unmap map touch=2 verify
storm "a daemon" 2 --no-background daemon map write=2 verify
# shellcheck disable=SC2086
storm "a new program" 2 --no-background exec $mem map write=2 verify
storm "a child" 2 --no-background fork map write=2 verify
storm "eager" 2 --eager map write=2 verify
served=$mem
mem="own=${GMEM_TEST_OWN:-memfd},$mib pattern=2,40"
storm "own memory" 4 "--vmm handoff --no-background" map touch=2 write=2 verify
storm "own memory, an inherited descriptor" 3 "--vmm handoff --handoff-fd" map write=2 verify
storm "own memory, eager" 3 "--vmm handoff --eager" map write=2 verify
mem=$served
check "supervisors were killed, often ($kills times)" test $kills -gt 30
check "nothing is left of them" await none_left

# A VMM that is about to need pages, and a gmem-restore that is about to be killed.
orphan() { # WORD...
    rm -f "$tmp/go"
    launch --no-background map pages=r1 say=there "wait=$tmp/go" "$@"
    await grep -q '^there' "$tmp/says"
    vmm=$(vmm_pid)
}
kill_it() {
    kill -9 "$restore"
    finish
    await waits
}

orphan verify exit=7
kill_it
check "it is told where the VM waits" grep -q \
    "process $restore was killed; the VMM, process $vmm, waits for gmem-restore --adopt $place" \
    "$tmp/says"
check "its socket is private" test "$(stat -c %a "$place")" = 600
: >"$tmp/go"
sleep 0.5
check "the VMM waits in a page" grep -q handle_userfault "/proc/$vmm/wchan" ||
    skip "the VMM waits in a page" "no wchan"
check "and lives" kill -0 "$vmm"
t "adopted, it goes on to its end, and its status is told" 7 \
    timeout -k 5 "$patience" gmem-restore --adopt "$place"
check "nothing is left" await none_left
check "nor the socket" test ! -e "$place"

orphan verify exit=7
t "one that lives is not adopted" 1 timeout -k 5 "$patience" gmem-restore --adopt "$place"
check "it says so" grep -q "gmem-restore, process $restore, serves it" "$err"
kill_it
adopt
first=$restore
await one_serves
t "nor one that is adopted" 1 timeout -k 5 "$patience" gmem-restore --adopt "$place"
check "it says by whom" grep -q "gmem-restore, process [0-9]*, serves it" "$err"
# Both at once, when it is killed: one has it, and the other is told.
kill -9 "$first"
gmem-restore --adopt "$place" 2>"$tmp/one" &
one=$!
gmem-restore --adopt "$place" 2>"$tmp/two" &
two=$!
await grep -qE 'has adopted it|serves it' "$tmp/one" "$tmp/two"
: >"$tmp/go"
wait $one
a=$?
wait $two
b=$?
check "two adopters: one has it, the other is turned away" \
    sh -c "[ $a$b -eq 17 ] || [ $a$b -eq 71 ]"

orphan die=15
kill_it
: >"$tmp/go"
sleep 0.5
check "a VMM that dies while it waits: its keeper ends" await none_left
check "it is told" grep -q 'the VMM was killed by signal 15, and nobody had adopted it' "$tmp/says"
t "it can't be adopted any more" 1 gmem-restore --adopt "$place"
check "it says so" grep -q "$place: no VM waits there" "$err"

orphan verify die=15
kill_it
adopt
await one_serves
: >"$tmp/go"
finish
check "a VMM that is killed: the adopter dies of the same signal" test "$status" -eq 143

orphan forever
kill_it
adopt
await one_serves
kill -TERM "$restore"
finish
check "a signal is passed to the VMM" test "$status" -eq 143
check "which is gone" await gone "$vmm"

# Whoever keeps it dies too.
orphan verify exit=7
keeper=$(ppid_of "$vmm")
kill_it
: >"$tmp/go"
kill -9 "$keeper"
check "the keeper is killed: so is the VMM" await gone "$vmm"
check "which saw no wrong byte" sh -c "! grep -q MISMATCH '$tmp/says'"
check "and everything else is gone" await none_left
i=0 wrong=0
while [ $i -lt 10 ]; do
    i=$((i + 1))
    launch --no-background map touch=2 write=2 verify forever
    await test -s "$tmp/pid"
    random 60
    sleep "0.$(printf %03d "$r")"
    keeper=$(ppid_of "$(vmm_pid)")
    if [ $((i % 2)) -eq 0 ]; then
        kill -9 "$restore" "$keeper" 2>/dev/null
    else
        kill -9 "$keeper" "$restore" 2>/dev/null
    fi
    finish
    await none_left || wrong=$((wrong + 1))
    ! grep -qs MISMATCH "$tmp/says" || wrong=$((wrong + 1))
done
check "both at once: nobody is left, nobody saw a wrong byte" test $wrong -eq 0
orphan verify exit=7
kill -9 "$(ppid_of "$vmm")"
finish
check "the keeper alone: the VM is stopped" test "$status" -eq 1
check "it is told" grep -q 'the keeper was killed; the VMM was stopped' "$tmp/says"
check "nobody is left" await none_left

# Another image under its name; and over it.
kept=$image
cp "$kept" "$tmp/over.gmem"
image other 65536 ram=memfd,$mib,40,3
other=$image image=$tmp/over.gmem
orphan verify exit=7
kill_it
mv "$image" "$tmp/moved.gmem"
cp "$other" "$image"
: >"$tmp/go"
t "another image under its name: the one that was opened is served" 7 \
    timeout -k 5 "$patience" gmem-restore --adopt "$place"
cp "$kept" "$image"
orphan verify exit=7
kill_it
cat "$other" >"$image"
: >"$tmp/go"
t "another one written over it: the VM is stopped" 6 \
    timeout -k 5 "$patience" gmem-restore --adopt "$place"
check "it is told" grep -q 'the VMM was stopped: .*another image' "$err"
check "the VMM is gone" await gone "$vmm"
check "and saw no wrong byte" sh -c "! grep -q MISMATCH '$tmp/says'"
image=$kept

# Strangers.
if command -v python3 >"$tmp/o"; then
    orphan verify exit=7
    kill_it
    python3 - "$place" <<'END'
import os, socket, struct, sys
for what in b"", b"x", os.urandom(4096), struct.pack("=IIiii256s", 99, 1, 0, 0, 0, b""), \
        struct.pack("=IIiii256s", 1, 1, 0, 0, 0, b""), struct.pack("=IIiii256s", 1, 2, 9, 0, 0, b""):
    for n in range(12):
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        try:
            s.send(what)
        except OSError:
            pass
        s.close() if n % 2 else globals().setdefault("open", []).append(s)
END
    : >"$tmp/go"
    t "those who talk nonsense are no adopters" 7 \
        timeout -k 5 "$patience" gmem-restore --adopt "$place"
else
    skip "those who talk nonsense are no adopters" "needs python3"
fi
if [ "$(id -u)" -eq 0 ] && command -v setpriv >"$tmp/o"; then
    orphan verify exit=7
    kill_it
    chmod 755 "$tmp"
    chmod 666 "$place"
    t "another user is turned away" 1 setpriv --reuid=65534 --regid=65534 --clear-groups \
        "$(command -v gmem-restore)" --adopt "$place"
    : >"$tmp/go"
    t "and nothing has changed" 7 timeout -k 5 "$patience" gmem-restore --adopt "$place"
else
    skip "another user is turned away" "needs root and setpriv"
fi

# Descriptors do not pile up in the keeper.
orphan verify exit=7
keeper=$(ppid_of "$vmm")
kill_it
fds() {
    # shellcheck disable=SC2012
    ls "/proc/$keeper/fd" | wc -l
}
n=0
i=0
while [ $i -lt 12 ]; do
    i=$((i + 1))
    adopt
    await one_serves
    kill -9 "$restore"
    finish
    await none_serves
    [ $i -ne 2 ] || n=$(fds)
done
check "adopted again and again: as many descriptors as before" test "$(fds)" -le "$n"
: >"$tmp/go"
t "and to the end" 7 timeout -k 5 "$patience" gmem-restore --adopt "$place"

# Where it waits if nobody says so.
mkdir "$tmp/run"
XDG_RUNTIME_DIR=$tmp/run gmem-restore --orphan wait --no-background "$image" -- \
    vmm-touch "pid=$tmp/pid" open='{mem}' pattern=2,40 map verify exit=7 &
watch_over
await test -S "$tmp/run/gmem/$restore"
check "in the user's folder" test -S "$tmp/run/gmem/$restore"
check "which is private" test "$(stat -c %a "$tmp/run/gmem")" = 700
finish
check "the VMM ends as ever" test "$status" -eq 7
check "the socket is gone" test ! -e "$tmp/run/gmem/$restore"
t "without such a folder" 2 env -u XDG_RUNTIME_DIR \
    gmem-restore --orphan wait "$image" -- true '{mem}'
check "it is told what to do" grep -q 'use --orphan wait=SOCKET' "$err"
t "--orphan kill is the default" 0 gmem-restore --orphan kill "$image" -- true '{mem}'
t "--orphan stay" 2 gmem-restore --orphan stay "$image" -- true '{mem}'
t "--orphan wait=" 2 gmem-restore --orphan wait= "$image" -- true '{mem}'
t "--orphan wait --record" 2 gmem-restore --orphan wait --record r "$image" -- true '{mem}'
t "--orphan wait --listen" 2 gmem-restore --orphan wait --listen l "$image"
t "a VMM that is not there" 127 gmem-restore --orphan "wait=$place" "$image" -- \
    "$tmp/nothing" '{mem}'
check "its socket is gone" await test ! -e "$place"
t "--adopt with an image" 2 gmem-restore --adopt "$place" "$image"
: >"$tmp/file"
t "a file in the socket's place" 1 gmem-restore --orphan "wait=$tmp/file" "$image" -- true '{mem}'
check "is left alone" test -f "$tmp/file"
check "nothing is left running" await none_left
done_testing

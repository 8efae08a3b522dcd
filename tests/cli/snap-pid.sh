#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --pid: the memory objects of a process, paused and resumed.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

hold() { # ARG...: a process with memory; $pid
    rm -f "$tmp/ready"
    mkfifo "$tmp/ready"
    hold-memory "$@" >"$tmp/ready" 2>"$tmp/hold-err" &
    pid=$!
    pids="$pids $pid"
    read -r answer <"$tmp/ready"
    [ "$answer" = ready ]
}
state() { sed 's/.*) //; s/ .*//' "/proc/$pid/stat"; }
running() { [ "$(state)" != T ] && [ "$(state)" != t ]; }
soon() { # COMMAND: within two seconds
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        "$@" && return 0
        sleep 0.1
    done
    return 1
}
stopped() { ! running; }
dir=$tmp/dir
mkdir "$dir"

head -c 1048576 /dev/urandom >"$tmp/shared"
hold -c -f "$tmp/shared" "ram=9:$tmp/a" "ram=5:$tmp/b" "odd name/x=1:$tmp/c" ||
    skip_all "hold-memory does not run"

t "--list" 0 gmem-snap --list --pid "$pid"
check "one line an object" lines 6 "$out"
for word in 'memfd  *ram  *9.0 MiB' 'memfd  *ram-1  *5.0 MiB' 'memfd  *x  *1.0 MiB' \
    'memfd  *counter  *8.0 KiB' 'file  *shared  *1.0 MiB' "hold-memory ($pid)"; do
    check "has $word" grep -q "$word" "$out"
done
t "--list --json" 0 gmem-snap --list --pid "$pid" --json
check "schema" grep -q '"schema": 1' "$out"
check "the names of the process" grep -q '"object": "odd name/x"' "$out"
check "addresses" grep -Eq '"hva": "0x[0-9a-f]+"' "$out"
check "resident" grep -q '"resident": 8192' "$out"

# The second word is never ahead of the first, and at most one behind.
consistent() {
    gmem-inspect extract "$1" --region counter -o "$tmp/counter" --force || return 1
    first=$(od -An -tu8 -N8 "$tmp/counter")
    second=$(od -An -tu8 -j4096 -N8 "$tmp/counter")
    [ "$first" -gt 0 ] && [ $((first - second)) -ge 0 ] && [ $((first - second)) -le 1 ]
}
saved() { # IMAGE REGION RAW
    gmem-inspect extract "$1" --region "$2" -o "$tmp/o" --force >/dev/null && cmp "$tmp/o" "$3"
}
for how in auto stop; do
    t "--pause $how" 0 gmem-snap --pid "$pid" --pause $how -o "$tmp/i" -f
    check "$how: tells the pause" grep -q 'paused for' "$out"
    check "$how: it runs again" running
    t "$how: is whole" 0 gmem-inspect verify "$tmp/i"
    check "$how: ram" saved "$tmp/i" ram "$tmp/a"
    check "$how: ram-1" saved "$tmp/i" ram-1 "$tmp/b"
    check "$how: x" saved "$tmp/i" x "$tmp/c"
    check "$how: of one moment" consistent "$tmp/i"
done
t "no shared file unless it is named" 1 gmem-inspect extract "$tmp/i" --region shared -o "$tmp/o"

t "--region by name and number" 0 gmem-snap --pid "$pid" --region shared --region 2 \
    --region ram-1 --state "vmm=$0" -o "$tmp/i" -f --json
check "two of them" test "$(grep -c page_size "$out")" -eq 2
check "the file" saved "$tmp/i" shared "$tmp/shared"
check "the second" saved "$tmp/i" ram-1 "$tmp/b"
t "--region by the name in the process" 0 gmem-snap --pid "$pid" --region 'odd name/x' \
    -o "$tmp/i" -f
check "that one" saved "$tmp/i" x "$tmp/c"
for n in 1 7; do
    gmem-snap -q --pid "$pid" --region ram --region 2 --threads $n -f -o "$tmp/i$n"
done
check "the same image with 1 and 7 threads" cmp "$tmp/i1" "$tmp/i7"

for name in none 6 0 -1; do
    t "--region $name" 1 gmem-snap --pid "$pid" --region $name -o "$dir/i"
    check "is told" grep -q -- "--region $name: .*--list" "$err"
done
t "a process without memory" 1 gmem-snap --pid $$ -o "$dir/i"
check "is told" grep -q -- '--list' "$err"
t "ourselves" 1 sh -c "exec gmem-snap --pid \$\$ -o $dir/i"
check "leaves nothing" test -z "$(ls -A "$dir")"

# A process that was stopped before stays so.
kill -STOP "$pid"
soon stopped
t "a stopped process" 0 gmem-snap --pid "$pid" --json -o "$tmp/i" -f
check "is still stopped" test "$(state)" = T
check "which is told" grep -q '"vm": "paused"' "$out"
kill -CONT "$pid"
t "--pause none" 0 gmem-snap --pid "$pid" --pause none --region ram --json -o "$tmp/i" -f
check "no pause" grep -q '"pause_ms": null' "$out"
check "saved" saved "$tmp/i" ram "$tmp/a"

# However gmem-snap ends, the process runs again.  A level that takes seconds.
slow="--chunk-size 2M --level 19 --threads 1"
for sig in TERM:143 KILL:137; do
    # shellcheck disable=SC2086
    gmem-snap --pid "$pid" $slow -o "$dir/i" 2>"$err" &
    check "${sig%:*}: it is stopped" soon stopped
    kill -"${sig%:*}" $!
    wait $!
    check "${sig%:*}: status" test $? -eq "${sig#*:}"
    check "${sig%:*}: it runs again" soon running
    check "${sig%:*}: leaves nothing" test -z "$(ls -A "$dir")"
done
check "the guardian tells" soon grep -q 'runs again' "$err"
# shellcheck disable=SC2086
gmem-snap --pid "$pid" $slow -o "$dir/i" 2>"$err" &
check "CONT: it is stopped" soon stopped
sleep 0.5 # and gmem-snap has seen it
kill -CONT "$pid"
wait $!
check "CONT by somebody else is an error" test $? -eq 1
check "that is told" grep -q 'not consistent' "$err"
# shellcheck disable=SC2086
gmem-snap --pid "$pid" $slow -o "$dir/i" 2>"$err" &
check "it is stopped" soon stopped
kill -KILL "$pid"
wait $!
check "the death of the process is an error" test $? -eq 1
check "that is told" grep -q 'has ended' "$err"
check "in two lines at most" test "$(wc -l <"$err")" -le 2
check "leaves nothing" test -z "$(ls -A "$dir")"

hold -p "ram=1:$tmp/a"
t "mapped privately" 0 gmem-snap --pid "$pid" -o "$tmp/i" -f
check "is a warning" grep -q 'warning: ram is mapped privately' "$err"

if hold -u "small=1" "ram=1"; then
    t "still being restored" 5 gmem-snap --pid "$pid" -o "$dir/i"
    check "is told" grep -q 'being restored (userfaultfd on ram ' "$err"
    check "leaves nothing" test -z "$(ls -A "$dir")"
    t "another object" 0 gmem-snap --pid "$pid" --region small -o "$tmp/i" -f
else
    skip "still being restored" "$(tail -n 1 "$tmp/hold-err")"
fi

# What the process does when it was looked at, and is not paused yet.
late() { # SIGNAL: hold-memory's; gmem-snap's status
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        hold-memory ram=1 >"$tmp/said" &
        pid=$!
        pids="$pids $pid"
        soon grep -q ready "$tmp/said"
        # Many threads take a while to start; the guardian is there before them.
        gmem-snap --pid "$pid" --threads 64 -f -o "$tmp/i" >"$out" 2>"$err" &
        snap=$!
        guard=
        while [ -z "$guard" ] && kill -0 $snap; do
            read -r guard <"/proc/$snap/task/$snap/children"
        done
        kill -STOP $snap && soon grep -q '^State:.T' "/proc/$snap/status"
        if [ -n "$guard" ] && running; then
            kill -"$1" "$pid"
            soon grep -q "done" "$tmp/said"
            kill -CONT $snap
            wait $snap
            return
        fi
        kill -CONT $snap
        wait $snap
    done 2>/dev/null
    too_late=true
}
too_late=
if [ -r /proc/$$/task/$$/children ]; then
    late USR1
    check "memory that is new: status" test $? -eq 1
    check "is told" grep -q 'late: the process changed it meanwhile' "$err"
    late USR2
    check "memory that begins to be restored: status" test $? -eq 5
    check "is told" grep -q 'being restored (userfaultfd on ram ' "$err"
    late HUP
    check "a child: status" test $? -eq 0
    check "is told" grep -q 'ram is mapped by hold-memory .* too, which is not paused' "$err"
    check "each in time" test -z "$too_late"
else
    skip "what is done in between" "the kernel does not list children"
fi

# The freezer, in a cgroup of its own.
cg=$(sed -n 's/^[^ ]* \([^ ]*\) cgroup2 .*/\1/p' /proc/mounts | head -n 1)/gmem-test-$$
if mkdir "$cg" 2>/dev/null; then
    hold -c "ram=9:$tmp/a"
    if echo "$pid" 2>/dev/null >"$cg/cgroup.procs"; then
        t "--pause auto" 0 gmem-snap -v --pid "$pid" -o "$tmp/i" -f
        check "is the freezer" grep -q 'pausing by: freezer' "$err"
        check "of one moment" consistent "$tmp/i"
        check "thawed" grep -q 0 "$cg/cgroup.freeze"
        # shellcheck disable=SC2086
        gmem-snap --pid "$pid" $slow -o "$dir/i" 2>"$err" &
        check "frozen" soon grep -q 1 "$cg/cgroup.freeze"
        kill -KILL $!
        wait $!
        check "thawed by the guardian" soon grep -q 0 "$cg/cgroup.freeze"
    else
        skip "--pause freezer" "may not move processes to a cgroup"
    fi
    kill -KILL "$pid"
    wait "$pid"
    rmdir "$cg"
else
    skip "--pause freezer" "no cgroup version 2 to write to"
fi
done_testing

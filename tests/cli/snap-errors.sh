#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap: whatever goes wrong is told, and leaves no file.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

make-image "$tmp/a" 9 5 32768 5 || exit 99
raw=$tmp/a.raw
dir=$tmp/dir
mkdir "$dir"
mkfifo "$tmp/fifo"
nothing() { check "leaves nothing" test -z "$(ls -A "$dir")"; }
says() { check "says so: $1" grep -q -- "$1" "$err"; }
brief() { check "in two lines at most" test "$(wc -l <"$err")" -le 2; }

t "--help" 0 gmem-snap --help
cp "$out" "$tmp/help"
check "nothing on stderr" test ! -s "$err"
t "--version" 0 gmem-snap --version
check "names the program" grep -q '^gmem-snap [0-9]' "$out"

wrong() {
    t "usage: $*" 2 gmem-snap "$@"
    check "nothing on stdout" test ! -s "$out"
    check "two lines on stderr" lines 2 "$err"
}
wrong
wrong -o "$dir/i"
wrong --file "$raw"
wrong --nothing
wrong --file "$raw" -o "$dir/i" more
wrong --file "$raw" --pid 1 -o "$dir/i"
wrong --file "$raw" --qmp sock -o "$dir/i"
wrong --file "$raw" --list
wrong --handoff sock --qmp sock -o "$dir/i"
wrong --handoff sock --leave paused -o "$dir/i"
says 'as before once we disconnect'
wrong --handoff sock --state x -o "$dir/i"
wrong --handoff sock
wrong --list
wrong --list --pid 1 -o "$dir/i"
wrong --list --pid 1 --force
wrong --qmp sock --pause none -o "$dir/i"
wrong --qmp sock --region ram -o "$dir/i"
wrong --pid 1 --leave quit -o "$dir/i"
wrong --pid 0 -o "$dir/i"
wrong --pid x -o "$dir/i"
wrong --qmp sock --leave alone -o "$dir/i"
wrong --pid 1 --pause please -o "$dir/i"
wrong --file "$raw" -o "$dir/i" --level 99
wrong --file "$raw" -o "$dir/i" --chunk-size 5000
wrong --file "$raw" -o "$dir/i" --chunk-size 4M
wrong --file "$raw" -o "$dir/i" --chunk-size 2K
wrong --file "$raw" -o "$dir/i" --threads 0
wrong --file "$raw" -o "$dir/i" --threads
wrong --file "$raw" -o "$dir/i" --progress-fd 99
wrong --file "$raw" -o "$dir/i" --json=yes
wrong --file "$raw" -o "$dir/i" --state file
wrong --file "$raw" -o "$dir/i" --state "a b=$raw"
wrong --file "$raw" -o "$dir/i" --annotate nothing
wrong --file "$raw" -o "$dir/i" --annotate a=1 --annotate a=2
wrong --file "$raw" -o "$dir/i" --annotate "a=$(printf '\377')"
wrong --file "$raw" -o - --json
nothing

t "no such file" 1 gmem-snap --file "$tmp/none" -o "$dir/i"
says "$tmp/none: No such file"
t "an empty file" 1 gmem-snap --file /dev/null -o "$dir/i"
: >"$tmp/empty"
{ sleep 0.2; cat "$raw"; } >"$tmp/fifo" &
t "a state from a pipe" 0 gmem-snap --file "$raw" --state "x=$tmp/fifo" -o "$tmp/i"
t "that begins late" 0 gmem-inspect extract "$tmp/i" --state x -o -
check "equal" cmp "$out" "$raw"
t "a folder" 1 gmem-snap --file "$tmp" -o "$dir/i"
t "an empty file" 1 gmem-snap --file "$tmp/empty" -o "$dir/i"
says 'is empty'
t "an empty state" 1 gmem-snap --file "$raw" --state "x=$tmp/empty" -o "$dir/i"
says 'state x'
t "no such state" 1 gmem-snap --file "$raw" --state "x=$tmp/none" -o "$dir/i"
says "$tmp/none: No such file"
t "two states of one name" 1 gmem-snap --file "$raw" --state x="$0" --state x="$0" -o "$dir/i"
t "no such folder" 1 gmem-snap --file "$raw" -o "$tmp/nowhere/i"
says nowhere
t "no such process" 1 gmem-snap --pid 2147483647 -o "$dir/i"
says 'no process'
t "no such socket" 1 gmem-snap --qmp "$tmp/none" -o "$dir/i"
says "$tmp/none"
nothing

echo mine >"$tmp/mine"
t "an existing file is kept" 1 gmem-snap --file "$raw" -o "$tmp/mine"
says -- '--force'
check "as it was" grep -qx mine "$tmp/mine"
t "a failure with --force" 1 gmem-snap --file "$tmp/none" --force -o "$tmp/mine"
check "keeps it too" grep -qx mine "$tmp/mine"

if [ -c /dev/full ]; then
    t "a full device" 1 gmem-snap --file "$raw" -o /dev/full
    says '/dev/full: .*No space left'
    brief
    for args in --help --version "--file $raw -o -" "--json --force --file $raw -o $tmp/full"; do
        t "/dev/full: $args" 1 sh -c "gmem-snap $args >/dev/full"
        says 'No space left'
    done
fi
t "a reader that goes away" 1 sh -c \
    "{ gmem-snap --file $raw -o - || echo \$? >$tmp/status; } | true; exit \$(cat $tmp/status)"
says 'Broken pipe'
(ulimit -f 100 && trap '' XFSZ && gmem-snap --file "$raw" -o "$dir/i") 2>"$err"
check "a limit on file sizes" grep -q 'File too large' "$err"
nothing

mkdir "$tmp/mnt"
if mount -t tmpfs -o size=1m none "$tmp/mnt" 2>/dev/null; then
    t "a full disk" 1 gmem-snap --file "$raw" -o "$tmp/mnt/i"
    says 'mnt/i: .*No space left'
    says 'free some space'
    brief
    check "leaves nothing" test -z "$(ls -A "$tmp/mnt")"
else
    skip "a full disk" "may not mount"
fi

# Killed and interrupted: the fifo keeps it in the middle for as long as we want.
in_the_middle() { # SIGNAL: of a copy from a state that comes slowly
    gmem-snap --file "$raw" --state "slow=$tmp/fifo" -o "$dir/i" 2>"$err" &
    exec 3>"$tmp/fifo"
    head -c 100000 "$raw" >&3
    kill -"$1" $!
    exec 3>&-
    wait $!
    status=$?
}
for sig in TERM:143 HUP:129; do
    in_the_middle ${sig%:*}
    check "SIG${sig%:*}: status ${sig#*:}" test "$status" -eq "${sig#*:}"
    says "interrupted by SIG${sig%:*}; nothing was written"
    check "one line" lines 1 "$err"
    nothing
done
in_the_middle KILL
nothing
if command -v timeout >/dev/null; then
    # A shell starts jobs that ignore SIGINT, timeout does not.
    sleep 5 >"$tmp/fifo" &
    t "SIGINT" 130 timeout --preserve-status -s INT 1 gmem-snap --file "$raw" \
        --state "slow=$tmp/fifo" -o "$dir/i"
    kill $!
    says 'interrupted by SIGINT; nothing was written'
    nothing
    for ms in 005 010 020 040 080 160; do
        timeout -s KILL 0.$ms gmem-snap -q --file "$raw" --level 15 -o "$dir/i" 2>/dev/null
        [ -e "$dir/i" ] && gmem-inspect verify "$dir/i" >/dev/null && rm "$dir/i"
        nothing
    done
fi

# Options in --help, and those in the list of the manual page.
page=$abs_top_srcdir/man/gmem-snap.1
grep -oE -- '--[a-z][a-z-]+' "$tmp/help" | sort -u >"$tmp/in-help"
sed -nE 's/^\.It .*Fl -([a-z-]+).*/--\1/p' "$page" | sort -u >"$tmp/in-page"
check "the page has the options of --help" diff "$tmp/in-help" "$tmp/in-page"
if command -v mandoc >/dev/null; then
    check "the page is clean" mandoc -T lint -W warning "$page"
fi
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What gmem-restore says and returns: usage, placeholders, the VMM's own end,
# images and VMMs that are not what they should be.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"

t "--help" 0 gmem-restore --help
check "nothing on stderr" test ! -s "$err"
cp "$out" "$tmp/help"
t "--version" 0 gmem-restore --version
check "names the program" grep -q '^gmem-restore [0-9]' "$out"

image a 32768 ram=memfd,8,12,2
image two 32768 left=memfd,1,12,2 right=memfd,1,12,3
two=$image
image=$tmp/a.gmem

wrong() {
    t "usage: $*" 2 gmem-restore "$@"
    check "nothing on stdout" test ! -s "$out"
}
wrong
wrong --nothing
wrong "$image"
wrong "$image" --
wrong "$image" --nothing -- true '{mem}'
wrong --vmm nothing "$image" -- true '{mem}'
wrong --api "$tmp/a.sock" "$image" -- true '{mem}'
wrong --threads 0 "$image" -- true '{mem}'
wrong --threads many "$image" -- true '{mem}'
for where in nowhere "" 1- 3-1 "0," 0,x -1 99999999999999999999; do
    wrong --placement "$where" "$image" -- true '{mem}'
done
wrong --sched idle "$image" -- true '{mem}'
wrong --eager --no-background "$image" -- true '{mem}'
wrong --paused "$image" -- true '{mem}'
wrong --state device "$image" -- true '{mem}'
wrong --qmp "$tmp/q" --state nothing "$image" -- true '{mem}'
check "the state is named" grep -q 'nothing' "$err"
wrong "$image" -- touch "$tmp/started"
check "no {mem}: the region and its size are named" grep -q '{mem:ram} of 8388608 bytes' "$err"
wrong "$image" -- touch "$tmp/started" '{mem:other}'
check "an unknown {mem:NAME} is named" grep -q '{mem:other}' "$err"
wrong "$image" -- touch "$tmp/started" '{mem}' '{state:other}'
check "an unknown {state:NAME} is named" grep -q '{state:other}' "$err"
wrong "$two" -- touch "$tmp/started" '{mem}'
check "an ambiguous {mem}: a name is offered" grep -q '{mem:left}' "$err"
wrong "$two" -- touch "$tmp/started" '{mem:left}'
check "a region that is not used is named" grep -q '{mem:right}' "$err"
check "the VMM was never started" test ! -e "$tmp/started"

t "no image" 1 gmem-restore "$tmp/nothing" -- true '{mem}'
head -c 100000 "$image" >"$tmp/cut.gmem"
t "a cut image" 3 gmem-restore "$tmp/cut.gmem" -- touch "$tmp/started" '{mem}'
cp "$image" "$tmp/part.gmem"
printf PART | dd of="$tmp/part.gmem" bs=1 seek=24 conv=notrunc 2>"$tmp/dd"
t "an unfinished image" 4 gmem-restore "$tmp/part.gmem" -- touch "$tmp/started" '{mem}'
check "is called incomplete" grep -q incomplete "$err"
cp "$image" "$tmp/new.gmem"
printf '\002\000' | dd of="$tmp/new.gmem" bs=1 seek=16 conv=notrunc 2>"$tmp/dd"
t "an image of a later version" 5 gmem-restore "$tmp/new.gmem" -- touch "$tmp/started" '{mem}'
check "the VMM was never started" test ! -e "$tmp/started"

needs_userfaultfd
t "--placement: a CPU that is not there" 1 \
    gmem-restore --placement 1000 "$tmp/a.gmem" -- touch "$tmp/started" '{mem}'
check "is said so" grep -q 'CPUs for who answers faults' "$err"
for how in "--placement same" "--placement 0" "--placement float --sched other"; do
    # shellcheck disable=SC2086
    t "$how" 0 gmem-restore $how --no-background "$tmp/a.gmem" -- \
        vmm-touch open='{mem}' pattern=2,12 map touch=2
done
if setpriv --bounding-set=-sys_nice true 2>"$tmp/setpriv"; then
    for class in nice fifo; do
        t "--sched $class without permission" 1 setpriv --bounding-set=-sys_nice \
            prlimit --rtprio=0 --nice=0 gmem-restore --sched $class "$tmp/a.gmem" -- \
            touch "$tmp/started" '{mem}'
        check "tells how to permit it" grep -q CAP_SYS_NICE "$err"
    done
else
    skip 4 "setpriv cannot take a capability away"
fi
check "the VMM was never started" test ! -e "$tmp/started"
image=$tmp/a.gmem
mem='open={mem} pattern=2,12'

# Options go before the image, or behind it.
t "options behind the image" 0 gmem-restore -q "$image" --eager --stats "$tmp/stats" -- true '{mem}'
check "are taken" grep -q '"engine": "eager"' "$tmp/stats"
t "what is behind -- is not ours" 0 gmem-restore "$image" --eager -- sh -c 'test "$1" = --stats' sh --stats '{mem}'

# The VMM is a normal child.
for options in "" --eager; do
    # shellcheck disable=SC2086
    vmm "exit status 0 $options" 0 $mem map touch=1 exit=0
    # shellcheck disable=SC2086
    vmm "exit status 77 $options" 77 $mem map exit=77
    check "no message of ours" test ! -s "$err"
    # shellcheck disable=SC2086
    vmm "dies by SIGABRT $options" 134 $mem map die=6
    # shellcheck disable=SC2086
    vmm "dies by SIGSEGV $options" 139 $mem map die=11
done
options=
t "ignored signals stay ignored (nohup)" 65 sh -c "trap '' HUP; gmem-restore '$image' -- vmm-touch die=1 {mem}"
t "no such VMM" 127 gmem-restore "$image" -- "$tmp/nothing" '{mem}'
check "it is named" grep -q "$tmp/nothing" "$err"
t "a VMM that cannot be run" 126 gmem-restore "$image" -- "$tmp" '{mem}'
t "standard streams pass through" 0 sh -c "echo hello | gmem-restore '$image' -- sh -c 'cat; echo there >&2' {mem}"
check "input and output" grep -qx hello "$out"
check "errors" grep -qx there "$err"
vmm "never maps" 3 "open={mem}" exit=3
check "that is said" grep -q 'without having mapped' "$err"
# shellcheck disable=SC2016 # the inner shell expands it
options="--qmp $tmp/qmp"
vmm "ends while it is waited for" 7 "open={mem}" map sleep=300 exit=7
check "no message of ours" test ! -s "$err"
options=
t "the state is a file" 0 gmem-restore "$image" -- sh -c 'cat "$1" | wc -c' sh '{state}' '{mem}'
check "of its size" grep -qx 1048576 "$out"
t "placeholders inside of words" 0 gmem-restore "$image" -- echo 'a={mem},b={state:device},{x},{memory}'
check "are replaced, others are not" \
    grep -Eqx 'a=/proc/self/fd/[0-9]+,b=/proc/self/fd/[0-9]+,\{x\},\{memory\}' "$out"
check "a shim that is not there" sh -c "! GMEM_SHIM=$tmp/nothing gmem-restore '$image' -- true '{mem}' 2>'$err'"
check "is named" grep -q "$tmp/nothing" "$err"

in_background() { # STATUS-FILE WORD...: ends up with the pid of gmem-restore in $restore
    status_file=$1
    shift
    rm -f "$tmp/pid" "$tmp/restore"
    # shellcheck disable=SC2086
    (
        env --default-signal=INT gmem-restore $options "$image" -- \
            vmm-touch "pid=$tmp/pid" "$@" >"$out" 2>"$err" &
        echo $! >"$tmp/restore"
        wait $!
        echo $? >"$status_file"
    ) 2>"$tmp/shell" &
    await test -e "$tmp/pid" && await test -s "$tmp/restore"
    restore=$(cat "$tmp/restore")
}
ends_with() { # STATUS
    await test -s "$tmp/status" && [ "$(cat "$tmp/status")" = "$1" ]
}
for sig in 15 2 12; do # SIGHUP: restore-supervise.sh
    rm -f "$tmp/status"
    # shellcheck disable=SC2086
    in_background "$tmp/status" $mem map touch=1 forever
    kill -$sig "$restore"
    check "signal $sig reaches the VMM, and gmem-restore dies by it" ends_with $((128 + sig))
    check "so does the VMM" gone "$(cat "$tmp/pid")"
done
rm -f "$tmp/status"
# shellcheck disable=SC2086
in_background "$tmp/status" $mem map touch=1 forever
kill -9 "$(cat "$tmp/pid")"
check "kill -9 of the VMM" ends_with 137

# Statistics.
options="--stats $tmp/stats.json"
rm -f "$tmp/status"
# shellcheck disable=SC2086
in_background "$tmp/status" $mem map touch=1 "say=done" forever
await grep -q 'done' "$out"
kill -s USR1 "$restore"
check "SIGUSR1 writes statistics" await test -s "$tmp/stats.json"
mv "$tmp/stats.json" "$tmp/first.json"
kill -s TERM "$restore"
check "and the end does" await test -s "$tmp/stats.json"
if command -v python3 >/dev/null; then
    check "both are JSON" sh -c "python3 -m json.tool '$tmp/first.json' && python3 -m json.tool '$tmp/stats.json'"
    cat >"$tmp/sum.py" <<'END'
import json, sys
d = json.load(open(sys.argv[1]))
f, p = d["faults"], d["pages"]
assert d["schema"] == 1 and d["engine"] == sys.argv[2], d
assert d["latency"]["count"] == f["stored"] + f["zero"], d
assert sum(b[1] for b in d["latency"]["buckets"]) == d["latency"]["count"], d
assert p["demand"] == f["stored"] + f["zero"], d
END
    check "the numbers agree" python3 "$tmp/sum.py" "$tmp/first.json" continue
fi
options="--stats - --no-background"
# shellcheck disable=SC2086
vmm "statistics on standard output" 0 $mem map touch=1
check "are JSON" grep -q '"schema": 1' "$out"
options="--stats $tmp/no/such"
# shellcheck disable=SC2086
vmm "statistics that cannot be written: the VMM ends first" 1 $mem map touch=1
check "but that is said" grep -q "$tmp/no: No such file" "$err"

# Damage: the VMM is stopped, and never sees a wrong byte.
cp "$image" "$tmp/bad.gmem"
size=$(wc -c <"$image")
dd if=/dev/urandom of="$tmp/bad.gmem" bs=1 seek=$((size * 3 / 4)) count=16 conv=notrunc 2>"$tmp/dd"
image=$tmp/bad.gmem
for options in --no-background "" --eager; do
    # shellcheck disable=SC2086
    vmm "a damaged chunk $options" 3 $mem map touch=2 "wait=$tmp/never"
    check "region and place are named" grep -Eq 'bad.gmem: ram: chunk at 0x[0-9a-f]+' "$err"
    check "nobody saw a wrong byte" lacks MISMATCH "$err"
done
check "an eager restore never starts the VMM" lacks 'was stopped' "$err"
image=$tmp/a.gmem
for options in --no-background ""; do
    cp "$image" "$tmp/running.gmem"
    image=$tmp/running.gmem
    rm -f "$tmp/status" "$tmp/go"
    # Its background fill would be done before the image is cut.
    [ -n "$options" ] || image cut 32768 ram=memfd,512,20,2
    # shellcheck disable=SC2086
    in_background "$tmp/status" open='{mem}' "pattern=2,$([ -n "$options" ] && echo 12 || echo 20)" map "wait=$tmp/go" touch=2 "wait=$tmp/never"
    truncate -s 200000 "$image"
    touch "$tmp/go"
    check "an image cut while it is restored $options" ends_with 3
    check "the VMM was stopped" grep -q 'the VMM was stopped' "$err"
    check "nobody saw a wrong byte" lacks MISMATCH "$err"
    image=$tmp/a.gmem
done

# VMMs that cannot be served.
options=
# shellcheck disable=SC2086
vmm "a private mapping" 1 $mem private map touch=1
check "is explained" grep -q 'private' "$err"
options=--no-background
for first in "" daemon fork; do
    # shellcheck disable=SC2086
    vmm "a mapping past libc ${first:+in a child}" 1 $mem $first raw-map forever
    check "is detected" grep -q 'has not handed it' "$err"
done
# shellcheck disable=SC2086
vmm "half of a page is discarded" 1 $mem map part=punch verify
check "is explained" grep -q 'part of a page' "$err"
options=
if cc -static -pthread -I "$abs_top_srcdir/include" -o "$tmp/static" \
    "$abs_top_srcdir/tests/lib/vmm-touch.c" "$abs_top_srcdir/tests/lib/touch-own.c" 2>"$tmp/cc"; then
    # shellcheck disable=SC2086
    t "a static VMM" 65 gmem-restore "$image" -- "$tmp/static" $mem map touch=1
    check "is explained" grep -q 'static or setuid' "$err"
    # shellcheck disable=SC2086
    t "a static VMM, eagerly" 0 gmem-restore --eager "$image" -- "$tmp/static" $mem map touch=2
else
    skip "a static VMM" "cc -static does not work here"
fi
# shellcheck disable=SC2086
t "a VMM without its environment" 65 gmem-restore "$image" -- env -i "$(command -v vmm-touch)" $mem map touch=1
check "is explained" grep -q 'without having mapped\|the shim was not loaded' "$err"

# Somebody who may not use userfaultfd, and a VMM that runs as somebody else.
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null &&
    [ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ] &&
    ! as_nobody test -r /dev/userfaultfd; then
    mkdir "$tmp/bin"
    cp "$abs_top_builddir/gmem-restore" "$abs_top_builddir/gmem-shim.so" "$(command -v vmm-touch)" "$tmp/bin"
    chmod 755 "$tmp" "$tmp/bin"
    chmod 644 "$image"
    GMEM_SHIM=$tmp/bin/gmem-shim.so
    # shellcheck disable=SC2086
    t "no permission" 1 as_nobody "$tmp/bin/gmem-restore" "$image" -- touch "$tmp/started" '{mem}'
    check "/dev/userfaultfd is offered" grep -q /dev/userfaultfd "$err"
    check "the sysctl is offered" grep -q 'vm.unprivileged_userfaultfd=1' "$err"
    check "the capability is offered" grep -q CAP_SYS_PTRACE "$err"
    check "the VMM was never started" test ! -e "$tmp/started"
    # shellcheck disable=SC2086
    t "no permission, eagerly" 0 as_nobody "$tmp/bin/gmem-restore" --eager "$image" -- "$tmp/bin/vmm-touch" $mem map touch=1
    caps="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+sys_ptrace --ambient-caps=+sys_ptrace"
    # shellcheck disable=SC2086
    t "with the capability" 0 $caps "$tmp/bin/gmem-restore" "$image" -- "$tmp/bin/vmm-touch" $mem map touch=1
    chmod u+s "$tmp/bin/vmm-touch"
    if as_nobody "$tmp/bin/vmm-touch" exit=0 && ! findmnt -no OPTIONS -T "$tmp" | grep -q nosuid; then
        # shellcheck disable=SC2086
        t "a setuid VMM" 65 $caps "$tmp/bin/gmem-restore" "$image" -- "$tmp/bin/vmm-touch" $mem map touch=1
        check "is explained" grep -q 'static or setuid' "$err"
    else
        skip "a setuid VMM" "the folder for temporary files is mounted nosuid"
    fi
else
    skip "no permission" "needs root, setpriv, and a closed userfaultfd"
fi

# Options in --help, and those in the list of the manual page.
page=$abs_top_srcdir/man/gmem-restore.1
grep -oE -- '--[a-z-]+' "$tmp/help" | sort -u >"$tmp/in-help"
sed -nE 's/^\.It .*Fl -([a-z-]+).*/--\1/p' "$page" | sort -u >"$tmp/in-page"
check "the page has the options of --help" diff "$tmp/in-help" "$tmp/in-page"
if command -v mandoc >/dev/null; then
    check "the page is clean" mandoc -T lint -W warning "$page"
fi
check "nothing is left running" none_left
done_testing

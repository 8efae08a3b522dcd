#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The lab itself: whatever becomes of a case, its end is told as it is.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
lab=$abs_top_srcdir/tests/lab/boot
for tool in "${QEMU:-qemu-system-x86_64}" cpio flock; do
    requires "$tool"
done

# The case is on standard input.
new_case() { # NAME
    {
        echo '#!/bin/sh'
        cat
    } >"$tmp/$1.lab"
}
with_lib() { # NAME
    {
        echo '. "${abs_top_srcdir:?}/tests/lab/lib.sh"'
        cat
    } | new_case "$1"
}
says() {
    grep -Eq -- "$1" "$out" && return
    tail -n 19 "$out"
    return 1
}
silent() { ! grep -E -- "$1" "$out"; }

# Two at once, as make -j2 does it.
with_lib good <<'END'
# lab: memory=512 seconds=30
check "one" true
echo "beside it" >&2
check "memory" test "$(awk '/MemTotal/ { print $2 }' /proc/meminfo)" -lt 524288
check "CPUs" test "$(nproc)" -eq 2
check "root" test "$(id -u)" -eq 0
check "nobody" test "$(as_nobody id -u)" -eq 65534
for file in /dev/kvm /dev/userfaultfd /dev/shm/. /sys/fs/cgroup/cgroup.procs /proc/self/exe; do
    check "$file" test -e "$file"
done
check "space" dd if=/dev/zero of="$tmp/file" bs=1M count=20
skip "what" "is skipped"
done_testing
END
with_lib folded <<'END'
for how in good bad early few crash status; do
    program lab-ends $how
done
program no-such-program
done_testing
END
"$lab" "$tmp/good.lab" >"$tmp/good.out" 2>&1 </dev/null &
good=$!
t "programs that end badly" 1 "$lab" "$tmp/folded.lab"
cp "$out" "$tmp/folded.out"
check "are six" test "$(grep -c '^not ok' "$out")" -eq 6
for what in 'ok 1 - lab-ends: one' 'ok 2 - lab-ends: # SKIP two, because of good' \
    'ok 3 - lab-ends: three' 'not ok 6 - lab-ends: three' \
    'not ok [0-9]* - lab-ends has run 2 of unknown tests' \
    'not ok [0-9]* - lab-ends has run 3 of 4 tests' \
    'not ok [0-9]* - lab-ends ends with status 134' \
    'not ok [0-9]* - lab-ends ends with status 3' \
    'not ok [0-9]* - no-such-program ends with status 127' \
    'ok [0-9]* - the kernel has nothing to complain about'; do
    # A directive within its name would make it a skip of ours.
    check "says $(printf %s "$what" | tr -d '#')" says "^$what\$"
done
plan=$(sed -n 's/^1\.\.//p' "$out")
check "the plan is right" test "$(grep -cE '^(not )?ok ' "$out")" -eq "${plan:-0}"

with_lib bad <<'END'
program lab-ends bad
done_testing
END
t "one test of a program has failed" 1 "$lab" "$tmp/bad.lab"
check "is told" says '^not ok 3 - lab-ends: three$'

wait "$good"
check "a case that is good" test $? -eq 0
cp "$tmp/good.out" "$out"
check "has its plan" says '^1\.\.13$'
check "and one test more" says '^ok 13 - the kernel has nothing'
check "fails nothing" silent '^not ok|^Bail out'
check "tells what it skips" says '^ok 12 - what # SKIP is skipped$'
check "what it says beside is kept apart" says '^# stderr: beside it$'
check "tells which Linux it is" says '^# lab: Linux [0-9]'

# Each of these must not pass.
new_case oops <<'END'
echo "ok 1 - before"
sleep 1 # until that is on its way
echo c >/proc/sysrq-trigger
END
t "the kernel dies" 1 "$lab" "$tmp/oops.lab"
check "is told" says '^Bail out! oops: .*before the case: .*(panic|sysrq|BUG)'
check "with what was good" says '^ok 1 - before'
check "with the end of its log" says '^#   .*sysrq'

new_case panic <<'END'
# lab: append=rdinit=/bin/false
END
t "the kernel has no init" 1 "$lab" "$tmp/panic.lab"
check "is told" says '^Bail out! panic: .*before the case: .*Kernel panic'

with_lib warns <<'END'
check one true
echo "WARNING: CPU: 0 PID: 1 at nowhere" >/dev/kmsg
done_testing
END
t "the kernel warns" 1 "$lab" "$tmp/warns.lab"
check "is a failure" says '^not ok 2 - the kernel has nothing to complain about'
check "of two tests" says '^1\.\.2$'
check "with its words" says '^#   .*at nowhere'

with_lib skips <<'END'
skip_all "no reason"
END
t "a case that is skipped" 0 "$lab" "$tmp/skips.lab"
check "says why" says '^1\.\.0 # SKIP no reason$'

new_case hangs <<'END'
# lab: seconds=2
echo "ok 1 - before"
trap '' TERM HUP INT
sleep 1000
sleep 1000
echo "1..1"
END
t "a case that hangs" 1 "$lab" "$tmp/hangs.lab"
check "is told" says '^Bail out! hangs: it took more than 2 s$'
check "with who waits" says '^# lab: process [0-9]+: sleep 1000'

# Inside, only init can still do something; QEMU's own time limit ends it.
new_case stuck <<'END'
# lab: seconds=3
echo "ok 1 - before"
sleep 1.5 # all of them are there
kill -STOP -1
sleep 1000
END
t "a machine that hangs" 1 env LAB_BOOT_SECONDS=15 "$lab" "$tmp/stuck.lab"
check "is told" says '^Bail out! stuck: the machine did not end in time$'
check "with what was good" says '^ok 1 - before$'

new_case early <<'END'
# lab: seconds=30
echo "ok 1 - before"
END
t "a case without a plan" 1 "$lab" "$tmp/early.lab"
check "is told" says '^Bail out! early: it ended without a plan, with status 0$'

new_case status <<'END'
echo "ok 1 - before"
echo "1..1"
exit 7
END
t "a case that ends with a strange status" 1 "$lab" "$tmp/status.lab"
check "is told" says '^Bail out! status: it ended with status 7$'

# What is there before it boots.
new_case settings <<'END'
# lab: seconds=60 minutes=1
END
t "a setting that is not known" 1 "$lab" "$tmp/settings.lab"
check "is told" says '^Bail out! .*not known: minutes=1$'
sed -i 's/ minutes=1/ memory=much/' "$tmp/settings.lab"
t "a setting that is wrong" 1 "$lab" "$tmp/settings.lab"
check "is told" says "^Bail out! memory wants a number, and not 'much'\$"
t "no such case" 1 "$lab" none
check "is told" says '^Bail out! there is no .*cases/none.lab$'
t "no such kernel" 1 env LAB_KERNEL_IMAGE="$tmp/none" "$lab" "$tmp/good.lab"
check "is told" says '^Bail out! there is no kernel .*/none$'
t "a kernel that is none" 1 env LAB_KERNEL_IMAGE="$tmp/good.lab" "$lab" "$tmp/good.lab"
check "is told" says '^Bail out! good: the machine has ended before the case'
check "with QEMU's words" says '^# QEMU: .'
t "no QEMU" 0 env QEMU=no-such-qemu "$lab" "$tmp/good.lab"
check "is skipped" says '^1\.\.0 # SKIP needs no-such-qemu$'
sed -i 's/^# lab: .*/# lab: programs=no-such-tool/' "$tmp/good.lab"
t "no such program" 0 "$lab" "$tmp/good.lab"
check "is skipped" says '^1\.\.0 # SKIP needs no-such-tool$'
done_testing

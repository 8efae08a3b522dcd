#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Somebody may set the clock while a VM stands still: nobody waits by it.  Only what is read to
# be shown to people, and then by time(), is the time of day.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

# FILE:LINE of every use of a clock that jumps, below a folder.
jumping() {
    grep -rnE --include='*.[ch]' \
        '\b(CLOCK_REALTIME|CLOCK_TAI|gettimeofday|timespec_get|ftime|sem_timedwait|mq_timed(send|receive)|mtx_timedlock|cnd_timedwait|pthread_(timedjoin_np|mutex_timedlock|rwlock_timed[rw]+lock))\b' "$1"
    # These take the clock of their condition, which has to be told.
    grep -rlE --include='*.c' '\bpthread_cond_timedwait *\(' "$1" | while read -r file; do
        grep -q 'pthread_condattr_setclock(.*CLOCK_MONOTONIC' "$file" || echo "$file: condition"
    done
}
quiet() {
    "$@" >"$tmp/found"
    cat "$tmp/found"
    [ ! -s "$tmp/found" ]
}
for folder in src include examples; do
    check "$folder: no wait by the time of day" quiet jumping "$abs_top_srcdir/$folder"
done
mkdir "$tmp/src"
for line in 'clock_gettime(CLOCK_REALTIME, &t);' 'pthread_timedjoin_np(t, NULL, &u);' \
    'pthread_cond_timedwait(&c, &l, &u);' 'pthread_rwlock_timedwrlock(&l, &u);'; do
    echo "$line" >"$tmp/src/x.c"
    jumping "$tmp/src" >"$tmp/found"
    check "catches $line" test -s "$tmp/found"
done
echo 'pthread_condattr_setclock(&a, CLOCK_MONOTONIC); pthread_cond_timedwait(&c, &l, &u);' \
    >"$tmp/src/x.c"
check "and lets a condition of the other clock be" quiet jumping "$tmp/src"
done_testing

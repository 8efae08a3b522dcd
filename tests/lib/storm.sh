# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Page servers that are killed at random moments; sources vmm-cli.sh.
#
#   watch_over              $! is a gmem-restore: $restore, which runs and finish are about
#   kill_servers            kills its page servers until it has ended; counts them in $kills
#   finish                  until it has ended; its status is in $status

. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
find_page_servers
seed=$(($(date +%s) % 30000))
echo "# random numbers begin at $seed"

random() { # N: 0 to N - 1, into $r
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    # shellcheck disable=SC2034
    r=$((seed / 8 % $1))
}

# The page server of gmem-restore, or nothing.
page_server() { # PID
    # shellcheck disable=SC2013
    for child in $(cat "/proc/$1/task"/*/children 2>/dev/null); do
        [ "$(cat "/proc/$child/comm" 2>/dev/null)" != gmem-page-serve ] || echo "$child"
    done
}
threads() { # PID: more than the first one
    # shellcheck disable=SC2012
    [ "$(ls "/proc/$1/task" 2>/dev/null | wc -l)" -gt 1 ]
}

watch_over() {
    restore=$!
    deadline=$(($(date +%s) + patience))
}
# Whether it goes on; one that hangs is ended.
runs() {
    ! gone "$restore" 2>/dev/null || return 1
    [ "$(date +%s)" -le "$deadline" ] && return
    echo "# it hangs: is ended"
    kill -9 "$restore"
    return 1
}
finish() {
    while runs; do
        sleep 0.02
    done
    wait "$restore" 2>/dev/null
    # shellcheck disable=SC2034
    status=$?
}

# One in four is killed at once, be it only just started, the others when they serve.
kills=0
kill_servers() {
    while runs; do
        random 60
        sleep "0.$(printf %03d $((r + 3)))"
        pid=$(page_server "$restore")
        [ -n "$pid" ] || continue
        random 4
        [ "$r" -eq 0 ] || threads "$pid" || continue
        kill -9 "$pid" 2>/dev/null && kills=$((kills + 1))
    done
}

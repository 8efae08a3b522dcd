# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154
# Words for scripts that save a VM while it writes (serve -C); vmm-server.sh comes first.
# snap is a function of the script's: gmem-snap --pause-less of this VM.

# Its first image, $tmp/i; what this machine lacks for that is a skip.
save_first() { # NAME
    snap -o "$tmp/i" >"$out" 2>"$err"
    status=$?
    if [ $status -eq 5 ] && grep -Eq 'userfaultfd|architecture' "$err"; then
        skip_all "$(tail -n 1 "$err")"
    fi
    check "$1" test $status -eq 0
    sed 's/^/# /' "$err"
    check "tells the pause" grep -q 'paused for' "$out"
    t "is whole" 0 gmem-inspect verify "$tmp/i"
    check "ram" saved "$tmp/i" ram "$tmp/a"
    check "one moment" is_cut "$tmp/i"
}
save_often() { # TIMES: with other threads and chunks each time
    k=0
    while [ $k -lt "$1" ]; do
        k=$((k + 1))
        snap -q -o "$tmp/i" -f --threads $((k % 3 + 1)) --chunk-size $((4 << (k % 5)))K
        check "one moment, again: $k" is_cut "$tmp/i"
    done
}
kill_it() { # PID: until it is dead
    kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}
free() { check "$1: nothing is protected any more" soon is_free; }
# No function, which would be a shell that is killed instead.
killed_after() { # MS GMEM-SNAP ARG...
    ms=$1
    shift
    "$@" &
    victim=$!
    sleep "$(printf '0.%03d' "$ms")"
    kill_it $victim
    free "killed after $ms ms"
}

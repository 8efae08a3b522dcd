# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154
# Words for scripts in which vmm-server plays the VMM; cli.sh comes first.
# $tmp/dir is where nothing may be left.

n=0
serve() { # ARG...: a VMM; $pid, $sock, $asked
    n=$((n + 1))
    sock=$tmp/sock$n asked=$tmp/asked$n
    : >"$asked"
    mkfifo "$tmp/ready$n"
    options=
    while [ "${1#-}" != "$1" ]; do
        case $1 in
        -[1cCmpu]) options="$options $1" ;;
        *)
            options="$options $1 $2"
            shift
            ;;
        esac
        shift
    done
    # shellcheck disable=SC2086
    vmm-server $options -l "$asked" "$sock" "$@" >"$tmp/ready$n" 2>"$tmp/serve-err" &
    pid=$!
    pids="$pids $pid"
    answer=
    read -r answer <"$tmp/ready$n"
    [ "$answer" = ready ]
}
end() {
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
}
soon() { # COMMAND: within two seconds
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        "$@" && return 0
        sleep 0.1
    done
    return 1
}
# Everything that was asked for, in one line.
were_asked() { [ "$(tr '\n' ' ' <"$asked")" = "$1 " ]; }
asked() { check "$1" soon were_asked "$2"; }
dir=$tmp/dir
mkdir "$dir"
nothing() { check "$1: leaves nothing" test -z "$(ls -A "$dir")"; }
brief() { check "$1: in two lines at most" test "$(wc -l <"$err")" -le 2; }
saved() { # IMAGE REGION RAW
    gmem-inspect extract "$1" --region "$2" -o "$tmp/o" --force >/dev/null && cmp "$tmp/o" "$3"
}
# No mapping of the VMM is write-protected.
is_free() { ! grep '^VmFlags:.* uw' "/proc/$pid/smaps"; }
# The numbers in the pages of the image: first and last differ by one at most, and never rise.
is_cut() {
    gmem-inspect extract "$1" --region cut -o "$tmp/raw" --force -q &&
        od -An -v -tu8 -w4096 "$tmp/raw" | awk '
            { n = $1 + 0 }
            NR == 1 { first = n }
            NR > 1 && n > last { exit bad = 1 }
            { last = n }
            END { exit bad || first == 0 || first - last > 1 || NR != 1024 }'
}

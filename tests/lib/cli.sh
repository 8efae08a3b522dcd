# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
# TAP for shell tests.  Source it first:
#
#   . "${abs_top_srcdir:?}/tests/lib/cli.sh"
#
#   t NAME STATUS COMMAND...   runs it: $out and $err are files with what it printed
#   check NAME COMMAND...      the same for a plain condition: status 0 is wanted
#   lines N FILE, lacks PATTERN FILE, last PATTERN FILE   conditions for check
#   skip NAME REASON           one test that is not run
#   requires TOOL...           skips the whole script if one is missing
#   skip_all REASON
#   done_testing               at the end
#
# $tmp is a folder of this script alone, removed when it ends.

tap_count=0
tap_failed=0

skip_all() {
    echo "1..0 # SKIP $*"
    exit 0
}

requires() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null || skip_all "needs $tool"
    done
}

tap_result() { # GOOD NAME
    tap_count=$((tap_count + 1))
    if [ "$1" = yes ]; then
        echo "ok $tap_count - $2"
    else
        echo "not ok $tap_count - $2"
        tap_failed=1
    fi
}

t() {
    tap_name=$1 tap_want=$2
    shift 2
    "$@" >"$out" 2>"$err" </dev/null
    tap_got=$?
    if [ "$tap_got" -eq "$tap_want" ]; then
        tap_result yes "$tap_name"
        return 0
    fi
    tap_result no "$tap_name"
    echo "# status $tap_got, not $tap_want: $*"
    sed 's/^/# stdout: /' "$out" | head -n 20
    sed 's/^/# stderr: /' "$err" | head -n 20
}

check() {
    tap_name=$1
    shift
    if "$@" >"$tmp/check" 2>&1 </dev/null; then
        tap_result yes "$tap_name"
    else
        tap_result no "$tap_name"
        echo "# failed: $*"
        sed 's/^/# /' "$tmp/check" | head -n 20
    fi
}

skip() {
    tap_count=$((tap_count + 1))
    echo "ok $tap_count - $1 # SKIP $2"
}

lines() { [ "$(wc -l <"$2")" -eq "$1" ]; }
lacks() { ! grep -q -- "$1" "$2"; }
last() { tail -n 1 "$2" | grep -Eqx -- "$1"; }

done_testing() {
    echo "1..$tap_count"
    exit $tap_failed
}

tmp=$(mktemp -d "${TMPDIR:-/tmp}/gmem-test.XXXXXX") || exit 99
pids= # of the background: those that are still our children are killed at the end
tap_clean() {
    # shellcheck disable=SC2086
    for p in $pids; do
        # Numbers come round.
        if grep -q "^PPid:[[:space:]]*$$\$" "/proc/$p/status" 2>/dev/null; then
            kill -KILL "$p" 2>/dev/null
        fi
    done
    # A test may have mounted something there.
    umount "$tmp/mnt" 2>/dev/null
    rm -rf -- "$tmp"
}
trap tap_clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
out=$tmp/stdout
err=$tmp/stderr

# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
# For the cases of the lab, run by busybox: all of tests/lib/cli.sh, and
#
#   program NAME [ARGUMENT...]   a program that prints TAP: its tests become ours
#   script NAME                  the same for the script tests/cli/NAME.sh; dash runs it if
#                                the case asks for dash (# lab: programs=dash,env), which
#                                takes the programs asked for and not those in busybox
#   as_nobody COMMAND...         without any privilege
#
#   . "${abs_top_srcdir:?}/tests/lab/lib.sh"

. "${abs_top_srcdir:?}/tests/lib/cli.sh"

# One line of TAP of the program $fold_name.
fold() {
    case $1 in
        "ok "* | "not ok "*)
            fold_tests=$((fold_tests + 1))
            # ok 12 - what # SKIP why
            fold_what=$(printf '%s\n' "$1" | sed -E 's/^(not )?ok *[0-9]* *(- )?//')
            tap_count=$((tap_count + 1))
            if [ "${1%%ok*}" = "not " ]; then
                echo "not ok $tap_count - $fold_name: $fold_what"
                tap_failed=1 fold_failed=1
            else
                echo "ok $tap_count - $fold_name: $fold_what"
            fi
            ;;
        1..0*)
            fold_plan=0
            skip "$fold_name" "${1#*SKIP }"
            ;;
        1..*) fold_plan=$(printf '%s\n' "$1" | sed 's/^1\.\.\([0-9]*\).*/\1/') ;;
        "Bail out!"*)
            fold_failed=1
            echo "# $1"
            ;;
        *) printf '%s\n' "# ${1#\# }" ;;
    esac
}

program() {
    fold_name=${1##*/} fold_tests=0 fold_plan='' fold_failed=0
    case $fold_name in
        sh | dash) fold_name=${2##*/} ;;
    esac
    rm -f "$tmp/fold"
    mkfifo "$tmp/fold" || exit 99
    "$@" >"$tmp/fold" </dev/null &
    fold_pid=$!
    while IFS= read -r fold_line || [ -n "$fold_line" ]; do
        fold "$fold_line"
    done <"$tmp/fold"
    wait "$fold_pid"
    fold_status=$?
    # Its status says what its tests say, and it has run all it has promised.
    if [ "$fold_status" -ne "$fold_failed" ]; then
        tap_result no "$fold_name ends with status $fold_status"
    elif [ "$fold_plan" != "$fold_tests" ]; then
        tap_result no "$fold_name has run $fold_tests of ${fold_plan:-unknown} tests"
    fi
}

script() {
    script_shell=/usr/bin/dash
    [ -x "$script_shell" ] || script_shell='sh'
    program "$script_shell" "${abs_top_srcdir:?}/tests/cli/$1.sh"
}

as_nobody() {
    su nobody -s /bin/sh -c 'exec "$0" "$@"' -- "$@"
}

# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2017,SC2034,SC2086,SC2154
# Words for scripts that let each system call of a command fail in turn; cli.sh comes first.
#
#   matrix NAME COMMAND...   runs it once to see what it calls; then again and again, each time
#                            with one call that fails, and judge after each
#   judge STATUS HOW         the script's own: says on stdout what is wrong, or nothing
#   ready                    the script's own: what has to be there before each run
#
# One test for each kind of call.  GMEM_TEST_MATRIX=all: every error for every occurrence
# that is tried, and more occurrences; else one error for each, another each time,
# in the order that GMEM_TEST_SEED says.  $what is fail-call's file.

what=$tmp/what
matrix_seed=${GMEM_TEST_SEED:-$(($(date +%s) % 30000))}
matrix_runs=0
matrix_few= # not empty: one call, any, and not some, of one kind of so many, any again
errors='ENOSPC EIO EINTR EAGAIN ENOMEM'

# brk(2) does not return errors.  What the sanitizers rely on is left out where they are.
matrix_exempt() { # CALL
    [ "$1" != brk ] || return 0
    [ -n "$GMEM_SANITIZERS" ] || return 1
    case $1 in
    mmap | munmap | mprotect | madvise | brk | clone | clone3 | wait4 | readlink | readlinkat) ;;
    prctl:* | rt_sigaction | sigaltstack | getdents64 | ptrace) ;;
    *) return 1 ;;
    esac
}

matrix_hows() { # CALL: what is to happen to it goes to $hows
    case $1 in
    read | write | pread64 | pwrite64) set -- $errors short kill ;;
    # The kernel has no error for these, when they are asked for what we ask for.
    rt_sigaction | alarm | wait4 | waitid | write:0x1) set -- kill ;;
    # No kernel answers EAGAIN there, which libcurl takes for a connection on its way.
    getsockopt) set -- ENOMEM EIO kill ;;
    # It has closed the file whatever it returns, which fail-call can't do.
    close | close_range) set -- kill ;;
    *) set -- $errors kill ;;
    esac
    hows=$*
    [ "$GMEM_TEST_MATRIX" != all ] || return
    matrix_seed=$(((matrix_seed * 1103515245 + 12345) % 2147483648))
    shift $((matrix_seed / 8 % $#))
    hows=$1
}

matrix_places() { # COUNT
    if [ "$GMEM_TEST_MATRIX" = all ]; then
        set -- 1 2 3 4 $(($1 / 4)) $(($1 / 2)) $(($1 / 4 * 3)) $(($1 - 1)) "$1"
    elif [ -n "$matrix_few" ]; then
        set -- $((1 + matrix_seed / 8 % $1))
    else
        set -- 1 2 $(($1 / 2)) "$1"
    fi
    printf '%s\n' "$@" | sort -nu | sed '/^0$/d; /^-/d'
}

matrix_chosen() {
    [ -n "$matrix_few" ] && [ "$GMEM_TEST_MATRIX" != all ] || return 0
    matrix_seed=$(((matrix_seed * 1103515245 + 12345) % 2147483648))
    [ $((matrix_seed / 4096 % matrix_few)) -eq 0 ]
}

matrix_once() { # CALL N HOW COMMAND...
    matrix_call=$1 matrix_n=$2 matrix_how=$3
    shift 3
    ready
    fail-call "$matrix_call" "$matrix_n" "$matrix_how" -o "$what" -t 20 "$@" \
        >"$out" 2>"$err" </dev/null
    matrix_status=$?
    matrix_runs=$((matrix_runs + 1))
    {
        grep -v '^injected' "$what"
        judge $matrix_status "$matrix_how"
    } >"$tmp/wrong"
    [ -s "$tmp/wrong" ] || return 0
    {
        echo "fail-call $matrix_call $matrix_n $matrix_how: status $matrix_status"
        sed 's/^/  /' "$tmp/wrong"
        sed 's/^/  stderr: /' "$err"
    } >>"$tmp/verdict"
}

matrix() {
    matrix_name=$1
    shift
    ready
    if ! fail-call -l "$tmp/calls" -t 60 "$@" >"$out" 2>"$err" </dev/null; then
        check "$matrix_name" cat "$err" "$tmp/calls" /nonexistent
        return
    fi
    while read -r call count; do
        : >"$tmp/verdict"
        ! matrix_exempt "$call" || continue
        matrix_chosen || continue
        for place in $(matrix_places "$count"); do
            # A call that a thread makes while it waits, say, may come less often now.
            matrix_hows "$call"
            for how in $hows; do
                matrix_once "$call" "$place" "$how" "$@"
            done
        done
        check "$matrix_name: $call" empty "$tmp/verdict"
    done <"$tmp/calls"
}
empty() { [ ! -s "$1" ] || { cat "$1" && false; }; }

# Exit status and messages of a command that has failed.
judge_failed() { # STATUS STATUS-THAT-IS-FINE...
    judge_status=$1
    shift
    case " $* " in
    *" $judge_status "*) ;;
    *) echo "exit status $judge_status" ;;
    esac
    sed -i '/^gmem-shim: /d; /warning: hand-off: a connection was turned away/d' "$err"
    [ -s "$err" ] || echo "no message"
    [ "$(wc -l <"$err")" -le 2 ] || echo "more than two messages"
    ! grep -Eq ': Success|: $|\(null\)' "$err" || echo "a message without a reason"
}
fail-call -l "$tmp/calls" true >"$out" 2>"$err" ||
    [ $? -ne 77 ] || skip_all "no user notifications of seccomp: $(cat "$err")"

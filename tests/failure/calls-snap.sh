#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Each system call of gmem-snap fails in turn, or is its last: there is a whole image or none,
# no other file, and the VM runs.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
. "${abs_top_srcdir:?}/tests/lib/vmm-server.sh"
. "${abs_top_srcdir:?}/tests/lib/failing.sh"

running() { # no thread of $pid is stopped
    for stat in "/proc/$pid/task/"*/stat; do
        read -r line <"$stat" || return 1
        line=${line##*) }
        case $line in [Tt]*) return 1 ;; esac
    done
}
same_memory() { # IMAGE
    cmp -s "$1" "$tmp/reference" || {
        gmem-inspect verify -q "$1" && saved "$1" ram "$tmp/ram" && saved "$1" more "$tmp/more"
    } >/dev/null 2>&1
}
# What is in the folder, and whether the VM runs.
judge() { # STATUS HOW
    left=$(ls -A "$dir")
    case $1 in
    0)
        same_memory "$dir/i" || echo "the image is wrong"
        left=$(echo "$left" | grep -vx i)
        ;;
    137)
        [ "$2" = kill ] || echo "killed"
        case $left in
        '') ;;
        i) same_memory "$dir/i" || cmp -s "$dir/i" "$tmp/old" || echo "half an image" ;;
        esac
        left=$(echo "$left" | grep -vx i)
        # Between two calls it has two names.
        ! grep -qs . "$tmp/old" || left=$(echo "$left" | grep -v '^\.i\.[0-9a-f]*\.part$')
        ;;
    *)
        judge_failed "$1" 1 5
        if grep -q 'the image is complete' "$err"; then
            # There is no way back from that.
            same_memory "$dir/i" || echo "the image is wrong"
            [ -e "$tmp/old" ] || echo "it was to vanish"
            left=$(echo "$left" | grep -vx i)
        elif [ -e "$tmp/old" ]; then
            cmp -s "$dir/i" "$tmp/old" || echo "the old image is gone"
            left=$(echo "$left" | grep -vx i)
        fi
        ;;
    esac
    [ -z "$left" ] || echo "left: $left"
    running || soon running || {
        echo "the VM does not run"
        kill -CONT "$pid"
    }
}
ready() {
    rm -rf "${dir:?}" && mkdir "$dir"
    [ ! -e "$tmp/old" ] || cp "$tmp/old" "$dir/i"
}
snap="gmem-snap -q --threads 2"
echo "# GMEM_TEST_SEED=$matrix_seed"

# ---- --pid ----
mkfifo "$tmp/ready"
hold-memory "ram=2:$tmp/ram" "more=1:$tmp/more" >"$tmp/ready" 2>"$tmp/hold-err" &
pid=$!
pids=$pid
read -r answer <"$tmp/ready"
[ "$answer" = ready ] || skip_all "hold-memory does not run"
$snap --pid "$pid" -o "$tmp/reference" || exit 99
# shellcheck disable=SC2086
matrix "--pid" $snap --pid "$pid" -o "$dir/i"
make-image "$tmp/old" 3 3 32768 3 || exit 99
# shellcheck disable=SC2086
matrix "--pid --force" $snap --pid "$pid" --pause stop -f -o "$dir/i"
rm "$tmp/old"
end

# ---- --handoff ----
serve "ram=2:$tmp/ram" "more=1:$tmp/more"
$snap --handoff "$sock" -f -o "$tmp/reference" || exit 99
# shellcheck disable=SC2086
matrix "--handoff" $snap --handoff "$sock" -o "$dir/i"
# shellcheck disable=SC2086
check "the VMM is still there" $snap --handoff "$sock" -o "$tmp/last"
check "and its memory is what it was" cmp "$tmp/last" "$tmp/reference"

echo "# $matrix_runs runs"
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Each system call of gmem-snap and gmem-restore fails in turn, or is its last, while they drive
# a VMM over its API: a real QEMU, and stand-ins for Firecracker and Cloud Hypervisor.  A VM that
# is saved runs on, whatever happens; one that is restored has the right bytes or is stopped.
[ ! -w /dev/shm ] || : "${TMPDIR:=/dev/shm}"
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
. "${abs_top_srcdir:?}/tests/lib/failing.sh"
needs_userfaultfd

matrix_few=2
dir=$tmp/dir api=$tmp/api
TMPDIR=$tmp/place
export TMPDIR
mkdir "$dir" "$TMPDIR"
vmm=
driven_clean() {
    [ -z "$vmm" ] || kill -KILL "$vmm" 2>/dev/null
    vmm_clean
}
trap driven_clean EXIT
echo "# GMEM_TEST_SEED=$matrix_seed"

# ---- saving ----

# What is where nothing may be, but for a whole image under its name.
judge() { # STATUS HOW
    case $1 in
    0) gmem-inspect verify -q "$dir/i" 2>&1 || echo "the image is wrong" ;;
    137)
        [ "$2" = kill ] || echo "killed"
        [ ! -e "$dir/i" ] || gmem-inspect verify -q "$dir/i" 2>&1 || echo "half an image"
        # Made when there was no guardian yet.
        rmdir "$TMPDIR"/* 2>/dev/null
        ;;
    *)
        judge_failed "$1" 1 5
        [ ! -e "$dir/i" ] || echo "there is an image"
        ;;
    esac
    removes_nothing || await only_image || echo "left: $(ls -A "$dir" "$TMPDIR")"
    await runs || {
        echo "the VM does not run"
        let_run
    }
}
# Whose attempt to remove something fails leaves that.
removes_nothing() { case $matrix_call in unlink | unlinkat | rmdir) ;; *) return 1 ;; esac; }
only_image() { [ -z "$(find "$dir" "$TMPDIR" -mindepth 1 ! -path "$dir/i")" ]; }
ready() { rm -rf "${dir:?}" "${TMPDIR:?}" && mkdir "$dir" "$TMPDIR"; }
end() {
    kill -KILL "$vmm"
    wait "$vmm"
    vmm=
} 2>/dev/null

# The last words fail once, whichever of them: that keeps no VM paused.  Right after matrix.
last_words() { # NAME CALL COMMAND...
    last_name=$1 last_call=$2
    shift 2
    last_n=$(sed -n "s/^$last_call //p" "$tmp/calls")
    : >"$tmp/verdict"
    for last_n in $(seq $((last_n > 8 ? last_n - 7 : 1)) "$last_n"); do
        matrix_once "$last_call" "$last_n" ENOMEM "$@"
    done
    check "$last_name: each of the last words" empty "$tmp/verdict"
}

# The second monitor: one connection for all questions.
qmp() { # COMMAND [ARGUMENTS]: the answer
    printf '{"execute":"%s"%s}\n' "$1" "${2:+,\"arguments\":$2}" >&8
    while read -r answer <&9; do
        case $answer in *'"return"'* | *'"error"'*) break ;; esac
    done
    echo "$answer"
}
boot() {
    qemu-system-x86_64 -machine pc,accel=tcg,memory-backend=ram0 -m 64 -nodefaults \
        -display none -object memory-backend-memfd,share=on,id=ram0,size=64M \
        -qmp "unix:$tmp/qmp,server=on,wait=off" -qmp "unix:$tmp/qmp.2,server=on,wait=off" \
        2>"$tmp/qemu-err" &
    vmm=$!
    await test -S "$tmp/qmp.2" || return
    mkfifo "$tmp/to" "$tmp/from"
    socat - "UNIX-CONNECT:$tmp/qmp.2" <"$tmp/to" >"$tmp/from" &
    pids="$pids $!"
    exec 8>"$tmp/to" 9<"$tmp/from"
    qmp qmp_capabilities >/dev/null
}
snap_qemu() {
    # What it was asked for while it is saved is taken back too.
    runs() {
        case $(qmp query-status) in *'"status": "running"'*) ;; *) return 1 ;; esac
        qmp query-migrate-capabilities |
            grep -q '"state": false, "capability": "x-ignore-shared"'
    }
    let_run() { qmp cont; }
    set -- gmem-snap -q --threads 2 --qmp "$tmp/qmp" -o "$dir/i"
    matrix "gmem-snap --qmp" "$@"
    last_words "gmem-snap --qmp" sendmsg "$@"
    end
    exec 8>&- 9<&-
}
if ! command -v qemu-system-x86_64 >/dev/null || ! command -v socat >/dev/null; then
    skip "gmem-snap --qmp" "needs qemu-system-x86_64 and socat"
elif boot; then
    snap_qemu
else
    skip "gmem-snap --qmp" "QEMU does not start: $(cat "$tmp/qemu-err")"
fi

begin() { # PROGRAM OPTION...: a VMM whose API is at $api
    rm -f "$api"
    "$@" >"$tmp/vmm-said" 2>&1 </dev/null &
    vmm=$!
    await test -S "$api"
}

fc() { stand-in-firecracker --api-sock "$api" "$@"; }
begin stand-in-firecracker --api-sock "$api" --boot --busy --mem-size 4
runs() { fc --request GET / | grep -q '"state":"Running"'; }
let_run() { fc --request PATCH /vm '{"state":"Resumed"}'; }
check "a Firecracker runs" await runs
set -- gmem-snap -q --threads 2 --firecracker "$api" -o "$dir/i"
matrix "gmem-snap --firecracker" "$@"
last_words "gmem-snap --firecracker" connect "$@"
gmem-snap -q --firecracker "$api" -o "$tmp/firecracker.gmem" || exit 99
end

ch() { stand-in-cloud-hypervisor --api-socket "$api" "$@"; }
runs() { ch --request GET /api/v1/vm.info | grep -q '"state":"Running"'; }
let_run() { ch --request PUT /api/v1/vm.resume; }
for memory in shared private; do
    shared=
    [ $memory = private ] || shared=,shared=on
    begin stand-in-cloud-hypervisor --api-socket "$api" --memory "size=4M$shared"
    check "a Cloud Hypervisor runs, $memory" await runs
    set -- gmem-snap -q --threads 2 --cloud-hypervisor "$api" -o "$dir/i"
    matrix "gmem-snap --cloud-hypervisor, $memory" "$@"
    last_words "gmem-snap --cloud-hypervisor, $memory" connect "$@"
    gmem-snap -q --cloud-hypervisor "$api" -o "$tmp/cloud-hypervisor-$memory.gmem" || exit 99
    end
done

# ---- restoring: fail-call tells who is left ----

judge() { # STATUS HOW
    ! grep -h WRONG "$out" "$err" || echo "a wrong byte"
    grep -q "$right" "$out" || [ "$1" -ne 0 ] || echo "the guest has not come to its end"
    case $1 in
    0) ;;
    137) [ "$2" = kill ] || echo "killed" ;;
    # The C library aborts when it can't unmap the stack of a thread that has ended.
    134) [ "$matrix_call" = munmap ] || echo "aborted" ;;
    *)
        # What the VMM says in between is not ours; what we take for nonsense is 3.
        sed -i '/^stand-in/d' "$err"
        judge_failed "$1" 1 3 5 126
        ;;
    esac
    # Who is killed leaves the folder of its sockets.
    [ "$2" = kill ] || removes_nothing || [ -z "$(ls -A "$TMPDIR")" ] || echo "left: $(ls -A "$TMPDIR")"
}
ready() {
    rm -rf "${TMPDIR:?}" "$api"
    mkdir "$TMPDIR"
}
# Where loading fails gmem-restore waits for the VMM's own last words: seconds.
matrix_few=5
right='^guest: ok: '
matrix "gmem-restore of Firecracker" gmem-restore --threads 2 "$tmp/firecracker.gmem" -- \
    stand-in-firecracker --api-sock "$api"
right='pages right'
for memory in shared private; do
    matrix "gmem-restore of Cloud Hypervisor, $memory" gmem-restore --threads 2 \
        "$tmp/cloud-hypervisor-$memory.gmem" -- stand-in-cloud-hypervisor --api-socket "$api"
done

echo "# $matrix_runs runs"
check "nothing is left running" none_left
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Each system call of gmem-restore fails in turn, or is its last: the guest sees the right
# bytes or is stopped, and nobody and nothing is left.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
. "${abs_top_srcdir:?}/tests/lib/failing.sh"
needs_userfaultfd

work=$tmp/work
mkdir "$work"
statuses="1 5 126"
# fail-call tells who is left.
judge() { # STATUS HOW
    case $1 in
    0)
        # A guest that does its work to the end says so.
        [ "$(tail -n 1 "$out")" = 'done' ] || echo "the guest has not come to its end"
        ;;
    137) [ "$2" = kill ] || echo "killed" ;;
    66) echo "a wrong byte" ;;
    65) grep -q 'ended without having' "$err" || echo "the guest has failed" ;;
    *)
        # What the VMM says in between is not ours.
        sed -i '/^vmm-touch: /d; /^done$/d' "$err"
        # shellcheck disable=SC2086
        judge_failed "$1" $statuses
        ;;
    esac
    [ -z "$(ls -A "$work")" ] || echo "left: $(ls -A "$work")"
}
ready() { rm -rf "${work:?}" && mkdir "$work"; }
echo "# GMEM_TEST_SEED=$matrix_seed"

image a 16384 ram=memfd,2,20,2
# shellcheck disable=SC2086
{
    matrix "by the shim" gmem-restore --threads 2 "$image" -- \
        vmm-touch 'open={mem}' pattern=2,20 map touch=2 write=2 verify "say=done"
    matrix "a VMM's own memory" gmem-restore --threads 2 --no-background --vmm handoff "$image" -- \
        vmm-touch own=memfd,2 pattern=2,20 map touch=2 write=2 verify "say=done"
    [ "$GMEM_TEST_MATRIX" != all ] ||
        matrix "eagerly" gmem-restore --threads 2 --eager "$image" -- \
            vmm-touch 'open={mem}' pattern=2,20 map touch=2 write=2 verify "say=done"
}

# Of those that are told what to die by, the page server is the first: this is the VMM's.
for n in 1 2; do
    fail-call prctl:0x1 $n EIO -o "$what" gmem-restore --eager "$image" -- true '{mem}' \
        >"$out" 2>"$err"
done
check "what fails between fork and exec is told" grep -q '^gmem-restore: start true: ' "$err"

echo "# $matrix_runs runs"
check "nothing is left running" none_left
done_testing

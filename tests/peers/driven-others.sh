#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2086 # lists of arguments
# VMMs that are driven, and are not ours: those of somebody else, or of another user.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd

# begin KIND OPTION...: runs in the background, its API at $api
begin() {
    kind=$1
    shift
    api=$tmp/$kind.sock
    rm -f "$api"
    case $kind in
        cloud-hypervisor) set -- --api-socket "$api" --memory size=8M,shared=on "$@" ;;
        firecracker) set -- --api-sock "$api" --boot --mem-size 8 --stay "$@" ;;
    esac
    timeout -k 5 "$patience" $as "stand-in-$kind" "$@" >"$tmp/vmm.out" 2>"$tmp/vmm.err" &
    vmm=$!
    await test -S "$api"
}
lives() { kill -0 "$vmm"; }
saves() { timeout -k 5 "$patience" gmem-snap --"$kind" "$api" -o "$tmp/$kind.gmem" --force; }
stop() {
    kill "$vmm"
    wait "$vmm"
} 2>/dev/null

as=
# Of two VMMs that were started one ends well (and what was asked for was not done), one is ended.
naps=1
for kind in cloud-hypervisor firecracker; do
    begin $kind
    t "$kind: saved" 0 saves
    # Its socket by mistake: what was started is another one.
    t "$kind: no restore into a VMM that was not started" 1 timeout -k 5 "$patience" \
        gmem-restore --vmm $kind --api "$api" "$tmp/$kind.gmem" -- sleep "$naps"
    check "$kind: it says so" grep -q 'is not the VMM that was started' "$err"
    check "$kind: which goes on" lives
    stop
    naps=1000
done

# The socket is given to the VMM's user.
nobody=65534
if [ "$(id -u)" -eq 0 ] && setpriv --reuid=$nobody --clear-groups true 2>/dev/null; then
    chmod 777 "$tmp"
    as="setpriv --reuid=$nobody --clear-groups"
    for kind in cloud-hypervisor firecracker; do
        begin $kind
        t "$kind: saved by root, of another user" 0 saves
        stop
    done
else
    skip "of another user" "needs root"
fi

done_testing

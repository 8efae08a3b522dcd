# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What the tests of gmem-restore share; sources cli.sh.
#
#   image NAME CHUNK REGION...   $tmp/NAME.gmem, by vmm-image
#   vmm NAME STATUS WORD...      gmem-restore $options $image -- vmm-touch WORD...
#
# A restore that hangs ends with status 124 after $patience seconds.

. "${abs_top_srcdir:?}/tests/lib/cli.sh"
# shellcheck disable=SC2154
GMEM_SHIM=${abs_top_builddir:?}/gmem-shim.so
GMEM_PAGE_SERVER=${GMEM_PAGE_SERVER:-$abs_top_builddir/gmem-page-server}
export GMEM_SHIM GMEM_PAGE_SERVER
options=
image=
patience=${GMEM_TEST_PATIENCE:-240}

image() {
    image=$tmp/$1.gmem
    shift
    vmm-image "$image" "$@" || exit 99
}

vmm() {
    vmm_name=$1 vmm_status=$2
    shift 2
    # shellcheck disable=SC2086
    t "$vmm_name" "$vmm_status" timeout -k 5 "$patience" \
        gmem-restore $options "$image" -- vmm-touch "$@"
}

needs_userfaultfd() {
    image probe 4096 ram=memfd,1,1,1
    # shellcheck disable=SC2154
    gmem-restore "$image" -- true '{mem}' 2>"$tmp/why" ||
        ! grep -q 'no permission for userfaultfd' "$tmp/why" || skip_all "$(cat "$tmp/why")"
}

# Lists processes that this test has left behind: they have its folder in their arguments.
leftovers() {
    # shellcheck disable=SC2009
    ps -eo pid,stat,args | grep -F -- "$tmp" | grep -Ev ' (grep|ps|sh|timeout) |^ *[0-9]+ Z'
}
none_left() { ! leftovers; }
# Page servers too, which have no arguments but their own name.
find_page_servers() {
    ln -s "$GMEM_PAGE_SERVER" "$tmp/gmem-page-server"
    GMEM_PAGE_SERVER=$tmp/gmem-page-server
}
vmm_clean() {
    # shellcheck disable=SC2046
    kill -KILL $(leftovers | awk '{ print $1 }') 2>/dev/null
    tap_clean
}
trap vmm_clean EXIT

# Waits up to 10 s for a condition.
await() {
    await_left=1000
    until "$@" >/dev/null 2>&1; do
        await_left=$((await_left - 1))
        [ "$await_left" -gt 0 ] || return 1
        sleep 0.01
    done
}
gone() { [ ! -d "/proc/$1" ] || grep -q '^State:.*[ZX]' "/proc/$1/status"; }

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Without any privilege, and with everything that can be given up given up.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
make-image "$tmp/a.gmem" 2 8 32768 6 || exit 99
chmod 755 "$tmp"
chmod 644 "$tmp/a.gmem"

# Only root can become somebody else; everybody else already is.
somebody=
if [ "$(id -u)" -eq 0 ]; then
    command -v setpriv >/dev/null || skip_all "needs setpriv to stop being root"
    somebody="setpriv --reuid 65534 --regid 65534 --clear-groups"
fi
mkdir "$tmp/theirs"
[ -z "$somebody" ] || chown 65534:65534 "$tmp/theirs"
inspect=$(command -v gmem-inspect)
# shellcheck disable=SC2086
$somebody test -x "$inspect" || skip_all "nobody may not run $inspect"

for verb in info verify map root; do
    # shellcheck disable=SC2086
    t "$verb as nobody" 0 $somebody gmem-inspect $verb "$tmp/a.gmem"
done
# shellcheck disable=SC2086
t "cat as nobody" 0 $somebody gmem-inspect cat "$tmp/a.gmem" 0
# shellcheck disable=SC2086
t "extract as nobody" 0 $somebody gmem-inspect extract "$tmp/a.gmem" -o "$tmp/theirs/out"
check "equal" cmp "$tmp/theirs/out" "$tmp/a.gmem.raw"
# shellcheck disable=SC2086
t "host as nobody" 0 $somebody gmem-inspect host

# Root has a power less than before, and still reaches the folders of others.
t "extract to somebody else's folder" 0 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/theirs/out2"
check "equal" cmp "$tmp/theirs/out2" "$tmp/a.gmem.raw"
(cd "$tmp" && gmem-inspect extract a.gmem -o relative) >"$out" 2>"$err"
check "a relative name" cmp "$tmp/relative" "$tmp/a.gmem.raw"

if [ -z "${GMEM_SANITIZERS#no}" ] && command -v strace >/dev/null &&
    strace -o "$tmp/trace" gmem-inspect info "$tmp/a.gmem" >/dev/null 2>&1; then
    # The loader reads its libraries in the same way: begin where the image is opened.
    sed -n '/^openat(.*a\.gmem"/,$p' "$tmp/trace" >"$tmp/ours"
    sed '/^pread64(/q' "$tmp/ours" >"$tmp/before"
    sed -n '/^pread64(/,$p' "$tmp/ours" >"$tmp/after"
    check "the image was read" test -s "$tmp/after"
    check "nothing is opened after the first byte was read" lacks '^\(open\|openat\|socket\|execve\)(' "$tmp/after"
    check "by then no descriptor can be opened" grep -q 'RLIMIT_NOFILE, [^N].* = 0$' "$tmp/before"
    check "nor a privilege be gained" grep -q PR_SET_NO_NEW_PRIVS "$tmp/before"
    check "nor a file be named" grep -q '^landlock_restrict_self\|^syscall_0x1be' "$tmp/before"
else
    skip "what is left when the image is read" "needs strace and no sanitizer"
fi
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Guest memory is for its owner alone: files, sockets, core files, and links that were
# planted where we write.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
umask 0

# ---- files ----

is_private() { [ -n "$(find "$1" -type f -perm 600)" ]; }
make-image "$tmp/a.gmem" 2 5 32768 6 || exit 99
chmod 666 "$tmp/a.gmem" "$tmp/a.gmem.raw"
t "an image" 0 gmem-snap --file "$tmp/a.gmem.raw" -o "$tmp/b.gmem"
check "is its owner's" is_private "$tmp/b.gmem"
t "extracted memory" 0 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/raw"
check "is its owner's" is_private "$tmp/raw"
t "a drawing" 0 gmem-inspect map --svg "$tmp/map.svg" "$tmp/a.gmem"
check "is its owner's" is_private "$tmp/map.svg"
t "in place of one that all may read" 0 gmem-inspect extract --force "$tmp/a.gmem" -o "$tmp/a.gmem.raw"
check "is its owner's" is_private "$tmp/a.gmem.raw"

# ---- links ----

echo mine >"$tmp/mine"
untouched() { [ "$(cat "$tmp/mine")" = mine ]; }
ln -s mine "$tmp/link"
t "a link in the output's place" 1 gmem-inspect extract "$tmp/a.gmem" -o "$tmp/link"
check "is not followed" untouched
t "with --force" 0 gmem-inspect extract --force "$tmp/a.gmem" -o "$tmp/link"
check "it is replaced" is_private "$tmp/link"
check "and not followed" untouched
ln -s nothing "$tmp/dangling"
t "a link to nothing" 1 gmem-snap --file "$tmp/raw" -o "$tmp/dangling"
check "is not followed" test ! -e "$tmp/nothing"
t "with --force" 0 gmem-snap --file "$tmp/raw" --force -o "$tmp/dangling"
check "is replaced" is_private "$tmp/dangling"
check "and not followed" test ! -e "$tmp/nothing"

# Without O_TMPFILE and without random numbers the temporary name can be guessed.
openat_of() { # PATTERN: the number of that openat among those of an extract
    strace -e trace=openat -o "$tmp/trace" gmem-inspect extract "$tmp/a.gmem" -o "$tmp/x" || return 1
    rm -f "$tmp/x"
    grep -c . "$tmp/trace" >/dev/null && sed "/$1/q" "$tmp/trace" | grep -c .
}
guessed() {
    sh -c 'ln -s mine "$0/.x.$(printf %016x $$).part" && exec strace -D -o "$0/trace" \
        -e inject=openat:error=EOPNOTSUPP:when="$1" -e inject=getrandom:error=ENOSYS \
        gmem-inspect extract "$0/a.gmem" -o "$0/x"' "$tmp" "$1"
}
if [ -z "${GMEM_SANITIZERS#no}" ] && command -v strace >/dev/null &&
    strace -e inject=getrandom:error=ENOSYS -o "$tmp/trace" true 2>/dev/null; then
    n=$(openat_of O_TMPFILE)
    t "a link under the temporary name" 1 guessed "$n"
    check "is met" grep -q 'create .*x: File exists' "$err"
    check "and not followed" untouched
    check "nothing is left but the link" test -z "$(find "$tmp" -name '.x.*' -type f)"
    rm -f "$tmp"/.x.*
else
    skip "a link under the temporary name" "needs strace and no sanitizer"
fi

# ---- core files: not ours, but the VMM's ----

limits_of() { sed -n 's/^Max core file size *\([^ ]*\) *\([^ ]*\) .*/\1 \2/p' "/proc/$1/limits"; }
needs_userfaultfd
image one 32768 ram=memfd,4,12,2
cat >"$tmp/vmm" <<'END'
#!/bin/sh
core() { sed -n 's/^Max core file size *\([^ ]*\) *\([^ ]*\) .*/\1 \2/p' "/proc/$1/limits"; }
echo "ours $(core "$PPID") $(cat "/proc/$PPID/coredump_filter")"
echo "its $(core $$) $(cat /proc/$$/coredump_filter)"
END
chmod +x "$tmp/vmm"
with_cores() {
    sh -c 'ulimit -c 1000 2>/dev/null
        echo 0x31 2>/dev/null >/proc/$$/coredump_filter
        exec "$@"' - "$@"
}
t "a VMM" 0 with_cores gmem-restore "$image" -- "$tmp/vmm" '{mem}'
if [ -z "${GMEM_SANITIZERS#no}" ]; then
    check "its core file is what it was to be" grep -qE '^its [1-9][0-9]* [0-9]+ 0*31$' "$out"
else
    skip "its core file is what it was to be" "a sanitizer limits it to nothing"
fi
check "ours has no memory, and no name" grep -qE '^ours 0 [0-9a-z]+ 0*$' "$out"
check "gmem-restore with its own limit otherwise" test -n "$(limits_of $$)"

# ---- the hand-off's socket ----

cat >"$tmp/knock" <<'END'
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    s.connect(sys.argv[1])
    print("connected", flush=True)
    s.settimeout(20)
    print("heard", len(s.recv(100)))
except OSError as e:
    print("failed", e.errno)
END
cat >"$tmp/vmm" <<'END'
#!/bin/sh
ls -ldL "$GMEM_HANDOFF"
find /tmp -maxdepth 2 -xdev -inum "$(stat -Lc %i "$GMEM_HANDOFF")" -type s 2>/dev/null
"$@" "$(dirname "$0")/knock" "$GMEM_HANDOFF"
END
chmod 755 "$tmp/vmm" "$tmp"
knock() { # NAME COMMAND...: it knocks by this command
    knock_name=$1
    shift
    t "$knock_name" 0 timeout -k 5 "$patience" gmem-restore --vmm handoff "$image" -- "$tmp/vmm" "$@" "$python"
}
# Another user can't run everybody's.
python=$(PATH=/usr/bin:/bin command -v python3)
if [ -z "$python" ]; then
    skip 5 "the hand-off's socket" "needs python3"
elif [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    nobody="setpriv --reuid 65534 --regid 65534 --clear-groups"
    # shellcheck disable=SC2086
    knock "another user" $nobody
    check "does not reach it" grep -qx 'failed 13' "$out"
    check "it is its owner's" grep -q '^srw------- ' "$out"
    check "and has no name" lacks /tmp/gmem- "$out"
    caps=dac_override,+dac_read_search,+sys_ptrace
    # shellcheck disable=SC2086
    if $nobody --inh-caps=+$caps --ambient-caps=+$caps true 2>/dev/null; then
        # shellcheck disable=SC2086
        knock "another user who gets there" $nobody --inh-caps=+$caps --ambient-caps=+$caps
        check "has connected" grep -qx connected "$out"
        check "is not talked to" grep -qx 'heard 0' "$out"
        check "is turned away" grep -q 'a connection of user 65534 was turned away' "$err"
    else
        skip "another user who gets there" "setpriv can't give a capability"
    fi
else
    skip "another user" "only root can become somebody else"
fi
done_testing

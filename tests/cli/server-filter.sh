#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The list of system calls of the page server, compared with what it does: nothing is missing,
# and nothing is in it that nobody needs.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
. "$abs_top_srcdir/tests/lib/filter.sh"
filter_requires
requires pgrep
needs_userfaultfd

list=$abs_top_srcdir/src/cli/filter-page-server.def
filter_trace_page_server

# Every engine, every way to give pages before they are asked for, what VMMs do to their memory.
image a 32768 ram=memfd,8,12,2
mem='open={mem} pattern=2,12'
for options in "" --no-background --eager "--engine map-continue" "--background rate=16m" \
    "--background idle" "--prefetch all --cold-io direct" "--prefetch all --cold-io cached --threads 3" \
    "--placement float" "--placement 0" "--record $tmp/trace"; do
    # shellcheck disable=SC2086
    vmm "serves $options" 0 $mem map write=4 verify
done
options="--prefetch trace=$tmp/trace --cold-io direct"
# shellcheck disable=SC2086
vmm "prefetches a trace" 0 $mem map touch=2
for options in "--sched nice" "--sched fifo"; do
    # Not everybody may.
    # shellcheck disable=SC2086
    gmem-restore $options "$image" -- true '{mem}' 2>/dev/null || continue
    # shellcheck disable=SC2086
    vmm "serves $options" 0 $mem map touch=2
done
options="--vmm handoff"
for words in "map touch=2" "map split write=2 verify" "map touch=1 discard=punch,3 touch=2" \
    "map discard=remove,1 touch=2" "map touch=2 unmap map verify"; do
    # shellcheck disable=SC2086
    vmm "of its own: $words" 0 own=memfd,8 pattern=2,12 $words
done
image hot 65536 hot=3 ram=memfd,8,12,2
options=
# shellcheck disable=SC2086
vmm "hot pages" 0 $mem map touch=2

# One that dies, and its successor, which looks what is there.
# shellcheck disable=SC2086
gmem-restore --no-background "$image" -- vmm-touch "pid=$tmp/pid" $mem map touch=1 "wait=$tmp/go" \
    write=2 verify >"$out" 2>"$err" &
restore=$!
server() { victim=$(pgrep -P "$restore" -x gmem-page-serve); }
await test -e "$tmp/pid"
await server
is_so() { grep -q "^$1:	*$2\$" "/proc/$victim/status"; }
check "the page server is confined" await is_so Seccomp 2
check "gains no privileges" is_so NoNewPrivs 1
[ "$(id -u)" -ne 0 ] || check "has no capabilities but to keep memory" is_so CapPrm 0000000000004000
check "the page server is killed" kill -KILL "$victim"
: >"$tmp/go"
wait "$restore"
check "the VMM goes on" test $? -eq 0
check "has a successor" grep -q 'another one goes on' "$err"

# A VMM with memory that has no descriptor, and one that asks for its pages.
api=$tmp/api
image=$tmp/fc.gmem
stand-in-firecracker --make --balloon-device "$tmp/fc.mem" "$tmp/fc.state" || exit 99
t "of Firecracker" 0 gmem-snap -q --file "memory=$tmp/fc.mem" --state "vmstate=$tmp/fc.state" -o "$image"
for options in "" --no-background; do
    rm -f "$api"
    # shellcheck disable=SC2086
    t "Firecracker $options" 0 timeout -k 5 "$patience" gmem-restore $options --vmm firecracker \
        "$image" -- stand-in-firecracker --api-sock "$api" --storm 3 --balloon while
done

# What it may not do: strace makes one of its calls another, which the filter sees.
cat >"$tmp/led-astray" <<END
#!/bin/sh
exec strace -D -f -qq -o /dev/null -e inject=pread64:error=EIO:syscall=getppid:when=3 \\
    '$filter_real'
END
chmod +x "$tmp/led-astray"
GMEM_PAGE_SERVER=$tmp/led-astray
options=
# shellcheck disable=SC2086
vmm "one that makes another call" 1 $mem map touch=1
check "is killed for it" grep -q 'killed by signal 31 ' "$err"

filter_made >"$tmp/made"
check "the runs were confined" grep -qx exit_group "$tmp/made"
filter_listed '[A-Z_]+' "$list" >"$tmp/allowed"
check "every call that is made is in the list" sh -c "! comm -13 '$tmp/allowed' '$tmp/made' | grep ."
filter_listed 'CALL|NEW|OWN|WHEN|IOCTL|FCNTL|REFUSE' "$list" >"$tmp/usual"
check "every call in the list is made" sh -c "! comm -23 '$tmp/usual' '$tmp/made' | grep ."
check "what is seldom made says why" \
    sh -c "! grep -hE '^(RARELY|REFUSE)' '$list' | grep -vE ', \"[^\"]{4,}\"\)\$'"
done_testing

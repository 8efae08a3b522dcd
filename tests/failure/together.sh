#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# More than one at a VM: two gmem-snap, a gmem-snap while gmem-restore still fills it; and VMMs
# that let go of what serves them.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd
bad=$tmp/bad
empty() { [ ! -s "$1" ] || { head -n 20 "$1" && false; }; }
seed=${GMEM_TEST_SEED:-$(($(date +%s) % 30000))}
echo "# GMEM_TEST_SEED=$seed"
random() { # N: 0 to N - 1, into $r
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    r=$((seed / 8 % $1))
}
nap() { # up to N ms
    random "$1"
    sleep "$(printf '0.%03d' "$r")"
}
running() {
    read -r line <"/proc/$1/stat"
    case ${line##*) } in [Tt]*) return 1 ;; esac
}

# ---- two gmem-snap ----
mkfifo "$tmp/ready"
hold-memory -c "ram=3:$tmp/ram" "$tmp=1" >"$tmp/ready" 2>"$err" &
vm=$!
read -r answer <"$tmp/ready"
[ "$answer" = ready ] || skip_all "hold-memory does not run"
# The second word is never ahead of the first, and at most one behind.
consistent() { # IMAGE
    gmem-inspect extract "$1" --region counter -o "$1.counter" --force >"$1.said" || return 1
    first=$(od -An -tu8 -N8 "$1.counter")
    second=$(od -An -tu8 -j4096 -N8 "$1.counter")
    [ "$first" -gt 0 ] && [ $((first - second)) -ge 0 ] && [ $((first - second)) -le 1 ]
}
again_and_again() { # NAME HOW: lines of what went wrong, and one "saved" for each image
    i=0
    while [ $i -lt "${GMEM_TEST_ROUNDS:-24}" ]; do
        i=$((i + 1))
        gmem-snap -q --pid "$vm" --pause "$2" -f -o "$tmp/$1.gmem" 2>"$tmp/$1.err"
        status=$?
        case $status in
        0)
            echo saved
            consistent "$tmp/$1.gmem" || echo "WRONG: not of one moment"
            ;;
        1)
            grep -q 'just being saved by another gmem-snap' "$tmp/$1.err" ||
                echo "WRONG: $(cat "$tmp/$1.err")"
            ;;
        *) echo "WRONG: status $status: $(cat "$tmp/$1.err")" ;;
        esac
    done
}
for how in stop auto; do
    again_and_again one $how >"$tmp/one" &
    one=$!
    again_and_again two $how >"$tmp/two" &
    two=$!
    again_and_again three $how >"$tmp/three"
    wait $one $two
    cat "$tmp/one" "$tmp/two" "$tmp/three" >"$tmp/all"
    check "three at once, --pause $how: whole and of one moment, or refused" lacks WRONG "$tmp/all"
    check "some were saved: $(grep -c saved "$tmp/all")" grep -q saved "$tmp/all"
    check "the process runs" running "$vm"
done
# Somebody else's pause and the end of it may lie in ours.
gmem-snap -q --pid "$vm" --pause stop --level 19 --chunk-size 2M --threads 1 -f -o "$tmp/i" \
    2>"$tmp/first" &
first=$!
is_stopped() { ! running "$vm"; }
await is_stopped
t "a second one" 1 gmem-snap --pid "$vm" --pause stop -o "$tmp/second"
check "is refused" grep -q 'another gmem-snap' "$err"
wait $first
check "the first is not disturbed" test $? -eq 0

# Without its guardian gmem-snap lets the process run itself.
i=0 lost=0 wrong=0
while [ $i -lt 10 ]; do
    i=$((i + 1))
    gmem-snap -q --pid "$vm" --pause stop --level 19 --threads 1 -f -o "$tmp/i" 2>"$err" &
    first=$!
    await is_stopped
    # shellcheck disable=SC2013
    for child in $(cat "/proc/$first/task/"*/children 2>/dev/null); do
        kill -KILL "$child" 2>/dev/null && lost=$((lost + 1))
    done
    wait $first || wrong=$((wrong + 1))
    consistent "$tmp/i" || wrong=$((wrong + 1))
    running "$vm" || wrong=$((wrong + 1))
done
check "its guardian is killed, $lost times: nothing happens" test $wrong -eq 0
check "there was one" test $lost -gt 0
kill -KILL "$vm"
wait "$vm" 2>/dev/null

# ---- gmem-snap while gmem-restore fills ----
image a 16384 ram=memfd,32,30,2
gmem-inspect extract "$image" --region ram -o "$tmp/want" >"$out" || exit 99
: >"$bad"
saved=0 refused=0 i=0
contents() { # IMAGE: of its one region
    gmem-inspect extract "$1" --region ram -o "$tmp/got" --force ||
        gmem-inspect extract "$1" --region own -o "$tmp/got" --force
}
# OPTIONS WORD...
snap_while_restoring() {
    launch_options=$1
    shift
    rm -f "$tmp/pid" "$tmp/s.gmem"
    # shellcheck disable=SC2086
    gmem-restore $launch_options "$image" -- vmm-touch "pid=$tmp/pid" "$@" >"$tmp/says" 2>&1 &
    restore=$!
    await test -s "$tmp/pid"
    nap "${delay:-60}"
    gmem-snap -q --pid "$(cat "$tmp/pid")" --pause stop -o "$tmp/s.gmem" 2>"$err"
    status=$?
    kill -KILL $restore
    wait $restore 2>/dev/null
    case $status in
    0)
        saved=$((saved + 1))
        contents "$tmp/s.gmem" >"$out" 2>&1
        cmp "$tmp/got" "$tmp/want" >>"$bad" 2>&1 || echo "$launch_options $*: wrong bytes" >>"$bad"
        ;;
    1 | 5) # 1: it has no memory yet
        refused=$((refused + 1))
        grep -Eq 'being restored|--list|meanwhile|did not stop|has ended' "$err" ||
            echo "$launch_options $*: $(cat "$err")" >>"$bad"
        [ ! -e "$tmp/s.gmem" ] || echo "an image was left" >>"$bad"
        ;;
    *) echo "$launch_options $*: status $status" >>"$bad" ;;
    esac
    await none_left || echo "left: $(leftovers)" >>"$bad"
}
while [ $i -lt "${GMEM_TEST_ROUNDS:-24}" ]; do
    i=$((i + 1))
    case $((i % 4)) in
    0) snap_while_restoring "" 'open={mem}' pattern=2,30 map touch=2 forever ;;
    1) snap_while_restoring --no-background 'open={mem}' pattern=2,30 map touch=1 forever ;;
    2) snap_while_restoring "--vmm handoff" own=memfd,32 pattern=2,30 map touch=1 forever ;;
    3) snap_while_restoring "--background rate=100M" 'open={mem}' sleep=20 pattern=2,30 map forever ;;
    esac
done
check "gmem-snap while gmem-restore fills: $saved whole, $refused refused" empty "$bad"
image=$tmp/a.gmem
rm -f "$tmp/pid"
gmem-restore --background rate=10M "$image" -- vmm-touch 'open={mem}' "pid=$tmp/pid" forever &
restore=$!
await test -s "$tmp/pid"
t "nobody maps it yet" 5 gmem-snap --pid "$(cat "$tmp/pid")" --pause stop -o "$tmp/none"
check "it is being restored" grep -q 'ram is itself still being restored: wait until' "$err"
check "there is no image" test ! -e "$tmp/none"
kill -KILL $restore
wait $restore 2>/dev/null
rm -f "$tmp/pid"
gmem-restore --no-background "$image" -- vmm-touch "pid=$tmp/pid" 'open={mem}' pattern=2,30 map \
    pages=r5 say=mapped forever >"$tmp/says" 2>&1 &
restore=$!
await grep -q mapped "$tmp/says"
t "nearly nothing is there" 5 gmem-snap --pid "$(cat "$tmp/pid")" --pause stop -o "$tmp/none"
check "no image" test ! -e "$tmp/none"
kill -KILL $restore
wait $restore 2>/dev/null
rm -f "$tmp/pid"
gmem-restore "$image" -- vmm-touch "pid=$tmp/pid" 'open={mem}' pattern=2,30 map touch=2 forever \
    >"$tmp/says" 2>&1 &
restore=$!
await test -s "$tmp/pid"
check "all is there in the end" \
    await gmem-snap -q --pid "$(cat "$tmp/pid")" --pause stop -o "$tmp/s.gmem" -f
contents "$tmp/s.gmem" >"$out" 2>&1
check "and right" cmp "$tmp/got" "$tmp/want"
kill -KILL $restore
wait $restore 2>/dev/null

# ---- a VMM that lets go ----
mem='open={mem} pattern=2,30 map'
for options in "" --no-background; do
    # shellcheck disable=SC2086
    vmm "its userfaultfd is closed${options:+, $options}" 0 $mem close-userfaultfd touch=2 verify
    # shellcheck disable=SC2086
    vmm "in the middle${options:+, $options}" 0 $mem pages=r5,r6 close-userfaultfd touch=2
done
check "nothing is left running" none_left
done_testing

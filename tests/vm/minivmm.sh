#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# minivmm, the VMM of examples/: its guest's output is the same with all kinds of
# memory, paused, saved or restored, and nothing that a client does harms it.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
    skip_all "no usable /dev/kvm"
fi
command -v minivmm >/dev/null || skip_all "minivmm is built for x86-64 only"

patience=120
run() { timeout -k 5 "$patience" "$@"; }

# ---- options ----

t "help" 0 minivmm --help
check "help tells the options" grep -q 'usage: .*--memory' "$out"
for bad in "--size 3" "--size x" "--rounds -1" "--memory ram" "--slot other" "--bogus" word \
    "--memory memfd --slot gmem" "--no-direct-map" "--restore f --rounds 1"; do
    # shellcheck disable=SC2086
    t "wrong: $bad" 2 minivmm $bad
    check "wrong: $bad: a line says so" lines 1 "$err"
done
t "restore, served by nobody" 1 env -u GMEM_HANDOFF minivmm --restore /dev/null
check "it says what to do" grep -q 'restore.*gmem-restore go together' "$err"

t "started by gmem-restore, to restore nothing" 1 env GMEM_HANDOFF="$tmp/no" minivmm
check "it says what to do" grep -q -- '--restore {state} and' "$err"

# ---- the unbroken run ----

guest="--size 6 --rounds 16 --writes 24 --free 5"
# shellcheck disable=SC2086
t "unbroken, in a memfd" 0 run minivmm $guest --memory memfd
grep -q 'create VM' "$err" && skip_all "no usable /dev/kvm: $(cat "$err")"
cp "$out" "$tmp/unbroken"
check "17 lines" lines 17 "$tmp/unbroken"
check "all rounds, then the end" last 'done sum [0-9a-f]{8}' "$tmp/unbroken"
check "the sums are different" test "$(cut -d ' ' -f 4 "$tmp/unbroken" | sort -u | wc -l)" -ge 16
# shellcheck disable=SC2086
t "another run" 0 run minivmm $guest --free 0 --memory memfd
check "prints other sums" test "$(tail -n 1 "$out")" != "$(tail -n 1 "$tmp/unbroken")"

# A run that may not be possible on this machine.  NAME PATTERN REASON COMMAND...
maybe() {
    name=$1 pattern=$2 reason=$3
    shift 3
    "$@" >"$out" 2>"$err" </dev/null
    status=$?
    if [ $status -eq 1 ] && grep -q "$pattern" "$err"; then
        skip "$name" "${reason:-$(cat "$err")}"
        return 1
    fi
    sed 's/^/# /' "$err"
    check "$name" test $status -eq 0
}

kinds=memfd
try_kind() { # KIND OPTION...
    kind=$1
    shift
    # shellcheck disable=SC2086
    maybe "unbroken: $*" 'this kernel' '' run minivmm $guest "$@" || return
    check "unbroken: $*: prints the same" cmp "$out" "$tmp/unbroken"
    kinds="$kinds $kind"
}
try_kind guest_memfd --memory guest_memfd
try_kind gmem --slot gmem
try_kind direct --slot gmem --no-direct-map
options_of() { # KIND
    case $1 in
        gmem) echo --slot gmem ;;
        direct) echo --slot gmem --no-direct-map ;;
        *) echo --memory "$1" ;;
    esac
}

# ---- clients ----

sock=$tmp/control
boot() { # OPTION...: $vmm, its output in $tmp/ran
    # shellcheck disable=SC2086
    minivmm --control "$sock" "$@" >"$tmp/ran" 2>"$tmp/ran-err" &
    vmm=$!
    await test -S "$sock" || echo "# no socket: $(cat "$tmp/ran-err")"
}
asks() { run vmm-control "$sock" "$@"; }
end() {
    kill "$vmm"
    wait "$vmm"
    check "${1:-SIGTERM ends it}" test $? -eq 143
    check "and its socket is gone" test ! -e "$sock"
}
rounds() { [ "$(wc -l <"$tmp/ran")" -ge "$1" ]; }
says() { # TEXT: the last command did
    printf '%b\n' "$1" | diff - "$out"
}

boot --size 8 --rounds 100000 --memory memfd
t "hello" 0 asks hello
check "one region, with its own descriptor" \
    says 'minivmm 1: ram 8 MiB, pages of 4096 at 0 + 0, its descriptor'
t "pause and resume" 0 asks hello moves pause still resume moves
t "pause twice, resume once" 0 asks pause pause resume refused=66
check "the second finds it paused" \
    says 'paused\nwas-paused\nresumed\nthis connection has not paused the VM'
t "STATE before PAUSE" 0 asks refused=65
check "is refused with the reason" says 'this connection has not paused the VM'
t "STATE after RESUME" 0 asks pause state="$tmp/s" resume refused=65
t "an unknown request" 0 asks refused=77 refused=1000000 refused=0 refused=129 hello
asks pause sleep=700 resume sleep=300 refused=66 >"$tmp/first" 2>&1 &
client=$!
check "one has paused it" await grep -qx paused "$tmp/first"
t "a second client" 0 asks hello pause still
check "is served when the first is through" grep -q 'has not paused' "$tmp/first"
check "and finds the VM running" grep -qx paused "$out"
wait "$client"
check "the first has not noticed" test $? -eq 0
t "many pauses" 0 asks pause resume pause resume pause resume pause resume pause resume hello moves
for bad in short long version text fds; do
    t "a bad packet: $bad" 0 asks $bad
    check "a bad packet: $bad: is told" grep -q 'no message of the hand-off, version 1' "$out"
done
t "a bad packet of one who has paused it" 0 asks pause short
t "it goes on" 0 asks hello moves
t "a client that ends while the VM is paused" 0 asks pause
t "it goes on" 0 asks hello moves
t "a client that is killed while the VM is paused" 137 asks pause state="$tmp/s" die
t "it goes on" 0 asks hello moves
check "it has not said a word" lines 0 "$tmp/ran-err"
t "a second one on this socket" 1 minivmm --control "$sock"
check "is told why" grep -q 'in use' "$err"
t "the first still has it" 0 asks hello
if setpriv --reuid 65534 --clear-groups true 2>"$tmp/why"; then
    chmod 755 "$tmp"
    chmod 777 "$sock"
    t "another user" 1 setpriv --reuid 65534 --clear-groups "$abs_top_builddir/vmm-control" \
        "$sock" hello
    check "gets no answer" grep -Eq 'no reply|send: ' "$err"
else
    skip "another user" "needs root and setpriv"
fi
end
boot --size 8 --rounds 100000 --memory memfd --delay 60000
t "paused in its delay" 0 asks hello pause still resume
asks pause sleep=2000 >/dev/null 2>&1 &
client=$!
sleep 0.3
end "SIGTERM ends it while it is paused"
wait "$client" 2>/dev/null

# ---- saved and restored ----

# shellcheck disable=SC2086
boot $guest --memory memfd --delay 20
check "a few rounds" await rounds 4
t "saved under way" 0 asks hello pause state="$tmp/state" ram="$tmp/ram" resume
wait "$vmm"
check "and on to the end" cmp "$tmp/ran" "$tmp/unbroken"
t "restored" 0 run vmm-serve lazy "$tmp/ram" minivmm --restore "$tmp/state" --memory memfd
left=$(wc -l <"$out")
check "some rounds are left" test "$left" -ge 3 -a "$left" -le 13
tail -n "$left" "$tmp/unbroken" >"$tmp/rest"
goes_on() { cmp "$out" "$tmp/rest"; }
check "they are the same" goes_on

for kind in $kinds; do
    for how in lazy eager; do
        # shellcheck disable=SC2046
        maybe "restored, $how: $kind" 'register.*Invalid' \
            "this kernel's userfaultfd takes no guest_memfd" \
            run vmm-serve "$how" "$tmp/ram" minivmm --restore "$tmp/state" \
            $(options_of "$kind") || continue
        check "restored, $how: $kind: the rest is the same" goes_on
        [ "$how $kind" != "lazy memfd" ] ||
            check "page by page" grep -q 'faults [1-9][0-9]*, exits 0, discarded [1-9]' "$err"
    done
done
cmp_both() { cat "$tmp/ran" "$out" | cmp - "$tmp/unbroken"; }

# It says nothing twice, and leaves nothing out: saved when it had just said a line.
# shellcheck disable=SC2086
boot $guest --memory memfd --delay 150
check "the first line" await rounds 1
t "saved, and ended while it stands still" 0 asks hello pause state="$tmp/state1" \
    ram="$tmp/ram1" kill
wait "$vmm"
t "restored" 0 run vmm-serve eager "$tmp/ram1" minivmm --restore "$tmp/state1" --memory memfd
check "the two together say what one would have said" cmp_both

# Saved again before all of the first image has arrived.
run vmm-serve lazy "$tmp/ram" minivmm --restore "$tmp/state" --memory memfd \
    --control "$sock" >"$tmp/ran" 2>"$tmp/ran-err" &
restored=$!
check "a restored one listens" await test -S "$sock"
t "paused while it is restored" 0 asks hello pause state="$tmp/state2" resume
wait "$restored"
check "goes on to the end" test $? -eq 0
check "with the same lines" cmp "$tmp/ran" "$tmp/rest"

# ---- what is wrong ----

cp "$tmp/ram" "$tmp/flipped"
printf X | dd of="$tmp/flipped" bs=1 seek=$((5 * 1048576 + 77)) conv=notrunc 2>"$tmp/dd"
t "one wrong byte" 3 run vmm-serve lazy "$tmp/flipped" minivmm --restore "$tmp/state" --memory memfd
check "the guest says where" grep -q 'wrong memory at 0x50004c: ' "$out"
t "memory of another size" 2 run vmm-serve lazy "$tmp/ram" minivmm --restore "$tmp/state" --size 16
check "is refused" grep -q 'leave out --size' "$err"
head -c 100 "$tmp/state" >"$tmp/short"
t "a short state" 1 run vmm-serve lazy "$tmp/ram" minivmm --restore "$tmp/short" --memory memfd
check "is named" grep -q 'no state of minivmm' "$err"
(printf 'X'; tail -c +2 "$tmp/state") >"$tmp/other"
t "a state of something else" 1 run vmm-serve eager "$tmp/ram" minivmm --restore "$tmp/other"
check "is named" grep -q 'no state of minivmm' "$err"
t "a hand-off that nobody answers" 1 env GMEM_HANDOFF="$tmp/nothing" minivmm --restore "$tmp/state"

# Who serves it is killed: it must not run on with zeros.
vmm-serve lazy "$tmp/ram" sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$tmp/pid" \
    minivmm --restore "$tmp/state" --memory memfd --control "$sock" >"$tmp/ran" 2>&1 &
server=$!
check "a restored one listens" await test -S "$sock"
child=$(cat "$tmp/pid")
kill -KILL "$server"
wait "$server" 2>/dev/null
check "it ends with the one who serves it" await gone "$child"

check "nothing is left running" none_left
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --handoff: a VMM that speaks the hand-off, and what one can do wrong.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
. "$abs_top_srcdir/tests/lib/vmm-server.sh"

# The second word is never ahead of the first, and at most one behind.
consistent() {
    gmem-inspect extract "$1" --region counter -o "$tmp/counter" --force || return 1
    first=$(od -An -tu8 -N8 "$tmp/counter")
    second=$(od -An -tu8 -j4096 -N8 "$tmp/counter")
    [ "$first" -gt 0 ] && [ $((first - second)) -ge 0 ] && [ $((first - second)) -le 1 ]
}
all="HELLO PAUSE STATE RESUME END"

# An honest VMM.
serve -c "ram=9:$tmp/a" "high=5:$tmp/b" || skip_all "vmm-server does not run"
t "a VMM" 0 gmem-snap --handoff "$sock" -o "$tmp/i"
check "tells the pause" grep -q 'paused for' "$out"
check "nothing else is told" test ! -s "$err"
asked "what it was asked for" "$all"
t "is whole" 0 gmem-inspect verify "$tmp/i"
check "ram" saved "$tmp/i" ram "$tmp/a"
check "high" saved "$tmp/i" high "$tmp/b"
check "of one moment" consistent "$tmp/i"
t "info" 0 gmem-inspect info --json "$tmp/i"
for word in '"kind": "handoff"' '"name": "stand-in"' '"version": "1.2 beta"' \
    '"kind": "memfd"' '"name": "vmm"'; do
    check "has $word" grep -q "$word" "$out"
done
check "the command line" grep -q '"vmm-server"' "$out"
check "where the guest sees it" grep -q '"gpa": "0x100000000"' "$out"
t "the state" 0 gmem-inspect extract "$tmp/i" --state vmm -o "$tmp/state"
check "from its beginning to its end" test "$(wc -c <"$tmp/state")" -eq 100000
check "in order" test "$(head -n 2 "$tmp/state" | tail -n 1)" = 0000008
t "--json" 0 gmem-snap --handoff "$sock" -o "$tmp/i" -f --json --state "more=$0"
check "the VM runs" grep -q '"vm": "running"' "$out"
check "both states" test "$(grep -c '"kind": "\(handoff\|file\)"' "$out")" -eq 2
t "a state that is there already" 1 gmem-snap --handoff "$sock" -o "$dir/i" --state "vmm=$0"
check "is told" grep -q 'two states are called "vmm"' "$err"
check "the VM runs again" last '.*nothing was written, the VM runs again' "$err"
nothing "two states"
for k in 1 7; do
    gmem-snap -q --handoff "$sock" --threads $k -o "$tmp/i$k" -f
    gmem-inspect extract "$tmp/i$k" --region ram -o "$tmp/raw$k" -q
done
check "the same memory with 1 and 7 threads" cmp "$tmp/raw1" "$tmp/raw7"
end

serve -p -n device "ram=1:$tmp/a" && t "paused before" 0 gmem-snap --handoff "$sock" -o "$tmp/i" -f --json
check "stays paused" grep -q '"vm": "paused"' "$out"
check "the name of the state" grep -q '"name": "device"' "$out"
t "fails" 1 gmem-snap --handoff "$sock" -o "$dir/i" --state "device=$0"
check "paused as before" last '.*the VM is paused as it was before' "$err"
end
serve -n a/b -s 1 ram=1 && t "a name that is none" 0 gmem-snap --handoff "$sock" -o "$tmp/i" -f --json
check "is vmm" grep -q '"name": "vmm"' "$out"
end

# What memory is made of.
serve -1 "low=3:$tmp/a" "high=2:$tmp/b" &&
    t "two regions in one descriptor" 0 gmem-snap --handoff "$sock" -o "$tmp/i" -f
check "low" saved "$tmp/i" low "$tmp/a"
check "high" saved "$tmp/i" high "$tmp/b"
end
serve -k file "$tmp/disk=3:$tmp/a" && t "a path is no name" 3 gmem-snap --handoff "$sock" -o "$dir/i"
end
cd "$tmp" || exit 99
serve -k file "ram=3:$tmp/a" && t "a file" 0 gmem-snap --handoff "$sock" -o "$tmp/i" -f --json
check "its kind" grep -q '"kind": "file"' "$out"
check "its bytes" saved "$tmp/i" ram "$tmp/a"
end
if serve -k hugetlb "ram=2:$tmp/a"; then
    t "hugetlb" 0 gmem-snap --handoff "$sock" -o "$tmp/i" -f --json
    check "its kind" grep -q '"kind": "hugetlb"' "$out"
    check "its pages" grep -q '"page_size": 2097152' "$out"
    check "its bytes" saved "$tmp/i" ram "$tmp/a"
else
    skip "hugetlb" "no free huge page"
fi
end
if serve -k gmem "ram=9:$tmp/a"; then
    t "guest_memfd" 0 gmem-snap --handoff "$sock" -o "$tmp/i" -f --json
    check "its kind" grep -q '"kind": "guest_memfd"' "$out"
    check "its bytes" saved "$tmp/i" ram "$tmp/a"
    gmem-snap -q --handoff "$sock" -o "$tmp/i2" --json >"$tmp/json2"
    check "holes stay holes" test "$(grep pages_stored "$out" | head -n 1)" = \
        "$(grep pages_stored "$tmp/json2" | head -n 1)"
    # The same VMM without its help.
    t "--list" 0 gmem-snap --list --pid "$pid"
    check "shows it" grep -q 'guest_memfd  kvm-gmem ' "$out"
    t "--pid" 0 gmem-snap --pid "$pid" -o "$tmp/i" -f
    check "the same bytes" saved "$tmp/i" kvm-gmem "$tmp/a"
    end
    serve -k dark ram=1
    t "guest_memfd without mmap" 5 gmem-snap --handoff "$sock" -o "$dir/i"
    check "is told" grep -q 'region ram: .*without GUEST_MEMFD_FLAG_MMAP' "$err"
    asked "it was not paused" "HELLO END"
    nothing "no mmap"
else
    skip "guest_memfd" "KVM has none here: $(tail -n 1 "$tmp/serve-err")"
fi
end
if serve -u ram=1; then
    t "still being restored" 5 gmem-snap --handoff "$sock" -o "$dir/i"
    check "is told" grep -q 'the VM is itself still being restored (userfaultfd on ram ' "$err"
    nothing "being restored"
else
    skip "still being restored" "$(tail -n 1 "$tmp/serve-err")"
fi
end

snap=$(command -v gmem-snap)
somebody="setpriv --reuid 65534 --regid 65534 --clear-groups"
# shellcheck disable=SC2086
if [ "$(id -u)" -eq 0 ] && $somebody test -x "$snap" 2>/dev/null; then
    mkdir "$tmp/theirs"
    chmod 755 "$tmp"
    chown 65534:65534 "$tmp/theirs"
    serve ram=1
    chmod 777 "$sock"
    t "somebody else" 1 $somebody gmem-snap --handoff "$sock" -o "$tmp/theirs/i"
    check "is told what it takes" grep -q 'ram is still .* run as the VMM.s user, or as root' "$err"
    check "leaves nothing" test -z "$(ls -A "$tmp/theirs")"
    asked "it was not paused" "HELLO END"
    end
    serve "ram=1:$tmp/a"
    chmod 777 "$sock"
    t "somebody else with CAP_SYS_PTRACE" 0 $somebody --inh-caps +sys_ptrace \
        --ambient-caps +sys_ptrace gmem-snap --handoff "$sock" -o "$tmp/theirs/i"
    check "the bytes" saved "$tmp/theirs/i" ram "$tmp/a"
    end
else
    skip "somebody else" "only root can become somebody else"
fi

# Lies about the regions: no image, and the VM was not even paused.
lie() { # LIE STATUS PATTERN
    serve -x "$1" ram=2 high=2
    t "lie: $1" "$2" gmem-snap --handoff "$sock" -o "$dir/i"
    check "lie: $1: is told" grep -q -- "$3" "$err"
    brief "lie: $1"
    nothing "lie: $1"
    asked "lie: $1: hung up" "HELLO END"
    end
}
lie none 3 'HELLO: 0 regions'
lie count 3 'HELLO: 3 regions, with'
lie many 3 'HELLO: 1000 regions'
lie fewer 3 '2 regions, but 1 descriptors'
lie lifeline 3 '2 regions, but 3 descriptors'
lie pipe 5 'ram: its descriptor: is no memory'
lie folder 5 'ram: its descriptor: is no memory'
lie path 5 'ram: its descriptor: is no memory'
lie other 3 'not the file that was announced'
lie size 3 'ram: 2101248 bytes from 0 on are announced, its descriptor has 2097152'
lie odd 3 'ram: a size of 2097151 bytes'
lie empty 3 'ram: a size of 0 bytes'
lie huge 3 'ram: a size of 1844'
lie offset 3 'ram: 2097152 bytes from 1844.* on are announced'
lie page 3 'ram: is said to have pages of 2097152 bytes, has 4096'
lie address 3 'ram: a guest physical address'
lie overlap 3 'high: ram has the same guest physical addresses'
lie same 3 'high: ram has the same memory'
lie name 3 'region 0: its name is not'
lie noname 3 'region 0: its name is not'
lie endless 3 'region 0: its name is not'
lie twice 3 'region 1: another one is called ram'

# Wrong answers at each step.
wrong() { # STEP:FAULT STATUS PATTERN ASKED LAST
    serve -f "$1" ram=2
    t "$1" "$2" gmem-snap --handoff "$sock" -o "$dir/i"
    check "$1: is told" grep -q -- "$3" "$err"
    check "$1: what became of the VM" last "gmem-snap: $5" "$err"
    check "$1: no escape" lacks "$(printf '\033')" "$err"
    brief "$1"
    nothing "$1"
    asked "$1: what it was asked for" "$4"
    end
}
left='nothing was written, the VMM was left to resume the VM'
again='nothing was written, the VM runs again'
for step in HELLO PAUSE STATE RESUME; do
    case $step in
    HELLO) to="HELLO" end='.*HELLO.*' ref='.*HELLO.*' ;;
    PAUSE) to="HELLO PAUSE" end=$left ref='.*PAUSE.*' ;;
    STATE) to="HELLO PAUSE STATE" end=$left ref=$again ;;
    RESUME)
        to="HELLO PAUSE STATE RESUME" end=$left
        ref='nothing was written, but the VM may be paused'
        ;;
    esac
    wrong $step:version 5 "answer to $step: the VMM speaks version 2" "$to END" "$end"
    wrong $step:short 3 "answer to $step: is no message" "$to END" "$end"
    wrong $step:empty 1 "closed the connection instead of answering $step" "$to END" "$end"
    wrong $step:text 3 "answer to $step: is no message" "$to END" "$end"
    wrong $step:close 1 "closed the connection instead of answering $step" "$to END" "$end"
    wrong $step:type 3 "answer to $step: a message of type 6" "$to END" "$end"
    wrong $step:fds 3 "answer to $step: is too long, or has desc" "$to END" "$end"
    case $step in
    STATE) wrong $step:error 1 "refuses STATE: no, because of ?\[31mred" "$to RESUME END" "$ref" ;;
    *) wrong $step:error 1 "refuses $step: no, because of ?\[31mred" "$to END" "$ref" ;;
    esac
    serve -f $step:die ram=2
    t "$step: it dies" 1 gmem-snap --handoff "$sock" -o "$dir/i"
    check "$step: dies: is told" grep -q "closed the connection instead of answering $step" "$err"
    [ "$step" = HELLO ] || check "$step: has ended" last '.*, the VM has ended' "$err"
    brief "$step: dies"
    nothing "$step: dies"
    end
    serve -f $step:slow ram=2
    t "$step: slow" 0 gmem-snap --handoff "$sock" -o "$tmp/i" -f
    asked "$step: slow: what it was asked for" "$all"
    end
done
wrong HELLO:nofd 3 '1 regions, but 0 descriptors' "HELLO END" '.*'
wrong PAUSE:more 3 'PAUSE: .*8 bytes too long' "HELLO PAUSE END" "$left"
wrong STATE:nofd 3 'answer to STATE: 0 descriptors' "$all" "$again"
wrong STATE:pipe 3 'answer to STATE: its descriptor is no file' "$all" "$again"
serve -s 0 ram=1
t "an empty state" 3 gmem-snap --handoff "$sock" -o "$dir/i"
check "is told" grep -q 'a state of 0 bytes' "$err"
asked "the VM was resumed" "$all"
end
serve -s 5000000000 ram=1
t "a state of 5 GB" 3 gmem-snap --handoff "$sock" -o "$dir/i"
check "is told" grep -q 'a state of 5000000000 bytes' "$err"
nothing "state"
end

# Signals: the answer is waited for no more, and the VM resumed.
# shellcheck disable=SC2086
for sig in INT:130 TERM:143 HUP:129; do
    serve -f PAUSE:slow ram=2
    env --default-signal=INT gmem-snap --handoff "$sock" -o "$dir/i" 2>"$err" &
    snap=$!
    check "${sig%:*}: waits" soon grep -q PAUSE "$asked"
    kill -"${sig%:*}" $snap
    wait $snap
    check "${sig%:*}: status" test $? -eq "${sig#*:}"
    asked "${sig%:*}: the VM was resumed" "HELLO PAUSE RESUME END"
    check "${sig%:*}: is told" grep -q 'nothing was written, the VM runs again' "$err"
    nothing "${sig%:*}"
    end
done
serve -f STATE:silent ram=2
gmem-snap --handoff "$sock" -o "$dir/i" 2>"$err" &
snap=$!
check "KILL: waits" soon grep -q STATE "$asked"
kill -KILL $snap
wait $snap
asked "KILL: the connection ends" "HELLO PAUSE STATE END"
nothing "KILL"
end

# Silence; all of them wait at the same time.
waiting=
for step in HELLO PAUSE STATE RESUME; do
    serve -f $step:silent ram=2
    cp "$asked" "$tmp/asked-$step"
    eval "asked_$step=\$asked"
    gmem-snap --handoff "$sock" -o "$dir/i" 2>"$tmp/err-$step" &
    waiting="$waiting $step:$!"
done
for one in $waiting; do
    step=${one%:*}
    wait "${one#*:}"
    check "$step: silence is an error" test $? -eq 1
    check "$step: is told" grep -q "no answer to $step within 30000 ms" "$tmp/err-$step"
    [ "$step" = HELLO ] || check "$step: what became of the VM" last "gmem-snap: $left" "$tmp/err-$step"
    eval "asked=\$asked_$step"
    check "$step: the connection ended" soon grep -q END "$asked"
done
nothing "silence"

# The socket, and options.
t "no socket" 1 gmem-snap --handoff "$tmp/none" -o "$dir/i"
check "is told" grep -q "none: connect: No such file" "$err"
t "a long path" 1 gmem-snap --handoff "$(printf '%0200d' 0)" -o "$dir/i"
check "is told" grep -q 'a path of 200 bytes' "$err"
for word in --leave\ paused --leave\ running --pause\ none --pid\ 1 --qmp\ x "--file $0" \
    --region\ ram --list; do
    # shellcheck disable=SC2086
    t "--handoff with $word" 2 gmem-snap --handoff "$sock" -o "$dir/i" $word
done
nothing "usage"
done_testing

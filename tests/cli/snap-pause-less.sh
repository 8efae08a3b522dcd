#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --pause-less: the VM writes while it is saved, and what one can do wrong.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
. "$abs_top_srcdir/tests/lib/vmm-server.sh"
. "$abs_top_srcdir/tests/lib/pause-less.sh"

snap() { gmem-snap --pause-less --handoff "$sock" "$@"; }
number() { od -An -v -tu8 -w4096 "$tmp/raw" | awk 'NR == 1 { print $1 }'; }
moves() { # the numbers of two images differ: the VM has run meanwhile
    snap -q -o "$tmp/now" -f && is_cut "$tmp/now" && [ "$(number)" -gt "$1" ]
}

serve -C "ram=9:$tmp/a" || skip_all "vmm-server does not run"
save_first "a VMM"
asked "what it was asked for" "HELLO PROTECT PAUSE STATE RESUME END"
save_often 20
was=$(number)
check "the VM has run meanwhile" moves "$was"
t "--json" 0 snap -o "$tmp/i" -f --json
check "tells that it ran" grep -q '"pause_less": true' "$out"
check "and that pages were written" grep -q '"pages_written": [1-9]' "$out"
check "the VM runs" grep -q '"vm": "running"' "$out"
free "in the end"

# Killed at any time: the VM goes on.
for ms in 0 2 5 8 12 20 30 50; do
    killed_after $ms gmem-snap --pause-less --handoff "$sock" -q -o "$tmp/k" -f
done
snap -q -o "$tmp/i" -f
check "still one moment" is_cut "$tmp/i"
check "and it runs" moves "$(number)"
# With a reader that does not read: it is in the middle for sure.
mkfifo "$tmp/pipe"
# shellcheck disable=SC2217 # it is who does not read
sleep 100 <"$tmp/pipe" &
reader=$!
pids="$pids $reader"
: >"$asked"
gmem-snap -q --pause-less --handoff "$sock" -o - --level -50 >"$tmp/pipe" &
victim=$!
protected() { grep -q '^VmFlags:.* uw' "/proc/$pid/smaps"; }
check "it is protected" soon protected
check "and runs on" soon grep -q RESUME "$asked"
kill_it $victim
free "killed in the middle"
kill $reader
check "the VM runs" moves 1

# A second one waits until the first is through.
gmem-snap -q --handoff "$sock" -o "$tmp/second" -f &
second=$!
snap -q -o "$tmp/i" -f
check "two at once: the first" is_cut "$tmp/i"
wait $second
check "two at once: the second" is_cut "$tmp/second"

# No room.
limited() { (ulimit -f 16 && trap '' XFSZ && exec gmem-snap --pause-less "$@"); }
t "no room" 1 limited --handoff "$sock" -o "$dir/i"
check "is told" grep -q 'File too large' "$err"
check "the VM runs" last '.*the VM runs again; raise the limit.*' "$err"
nothing "no room"
free "no room"
check "the VM runs" moves 1
end

# What is the same as with a pause.
serve "ram=40:$tmp/a"
gmem-snap -q --handoff "$sock" -o "$tmp/paused"
snap -q -o "$tmp/live"
check "a VM that does not write gives the same image" cmp "$tmp/paused" "$tmp/live"
gmem-snap -q --handoff "$sock" -o "$tmp/paused" -f --chunk-size 4K --level 3
snap -q -o "$tmp/live" -f --chunk-size 4K --level 3 --threads 5
check "with other chunks, too" cmp "$tmp/paused" "$tmp/live"
end
serve -1 "low=3:$tmp/a" "high=2:$tmp/b"
t "two regions in one descriptor" 0 snap -o "$tmp/i" -f
check "low" saved "$tmp/i" low "$tmp/a"
check "high" saved "$tmp/i" high "$tmp/b"
end
serve -p "ram=2:$tmp/a"
t "paused before" 0 snap -o "$tmp/i" -f --json
check "stays paused" grep -q '"vm": "paused"' "$out"
end
if serve -k hugetlb "ram=4:$tmp/a"; then
    t "hugetlb" 0 snap -o "$tmp/i" -f
    check "its bytes" saved "$tmp/i" ram "$tmp/a"
else
    skip "hugetlb" "no free huge page"
fi
end

# Refused before the VM is paused.
refused() { # NAME STATUS PATTERN ASKED
    t "$1" "$2" snap -o "$dir/i"
    check "$1: is told" grep -q -- "$3" "$err"
    brief "$1"
    nothing "$1"
    asked "$1: was not paused" "$4"
    check "$1: nothing is protected" is_free
    end
}
serve -x old ram=2 && refused "a VMM that does not know it" 5 'stand-in 1.2 beta.* cannot have' "HELLO END"
serve -m ram=2 && refused "a child maps the memory" 5 'ram is mapped by .*, too\|mapped by vmm-server .* too' "HELLO PROTECT END"
if serve -k gmem ram=2; then
    refused "guest_memfd" 5 'cannot write-protect this kind' "HELLO PROTECT END"
else
    skip "guest_memfd" "no guest_memfd that can be mapped"
    end
fi
lie() { # LIE STATUS PATTERN
    serve -x "map-$1" ram=2 high=2 && refused "lie: $1" "$2" "$3" "HELLO PROTECT END"
}
lie none 3 'PROTECT: 0 mappings, with 0'
lie count 3 'PROTECT: 3 mappings, with 64'
lie many 3 'PROTECT: 1000000 mappings'
lie bytes 3 'PROTECT: 2 mappings, with 63'
lie region 3 'mapping 0: region 2, there are 2'
lie odd 3 'mapping 0: .* are no pages'
lie empty 3 'mapping 0: 0 bytes'
lie huge 3 'mapping 0: .* are no pages'
lie long 3 'mapping 0: .* region ram has 2097152'
lie offset 3 'mapping 0: 2097152 bytes from 4096 on'
lie wrap 3 'mapping 0: .*region ram has 2097152'
lie twice 3 'mapping 1: it overlaps mapping 0'
lie fewer 1 'region high: a mapping of the VMM at 0x[0-9a-f]* is not among'
lie part 1 'region ram: a mapping of the VMM at'
lie shifted 1 'region ram: a mapping of the VMM'
lie nowhere 5 'memory at 0x1000: '
lie other 1 'region ram: a mapping of the VMM'
lie pipe 1 'handshake: Inappropriate ioctl'
lie used 5 'userfaultfd'

# Wrong answers.
for fault in version:5 short:3 text:3 close:1 type:3 fds:3 error:1 die:1; do
    what=${fault%:*}
    serve -f "PROTECT:$what" ram=2
    t "PROTECT: $what" "${fault#*:}" snap -o "$dir/i"
    check "PROTECT: $what: is told" grep -q 'PROTECT' "$err"
    check "PROTECT: $what: no escape" lacks "$(printf '\033')" "$err"
    brief "PROTECT: $what"
    nothing "PROTECT: $what"
    end
done
serve -f PROTECT:nofd ram=2 && refused "PROTECT: nofd" 3 '0 descriptors, one is wanted' "HELLO PROTECT END"
serve -f STATE:error ram=2
t "no state" 1 snap -o "$dir/i"
asked "the VM runs again" "HELLO PROTECT PAUSE STATE RESUME END"
check "is told" last '.*nothing was written, the VM runs again' "$err"
end
serve -f RESUME:close ram=2
t "RESUME: close" 1 snap -o "$dir/i"
check "nothing is protected" soon is_free
nothing "RESUME: close"
end

# Options.
for word in "--mapped-ram $0" "--from $0" "--file $0" --list; do
    # shellcheck disable=SC2086
    t "--pause-less with $word" 2 gmem-snap --pause-less -o "$dir/i" $word
done
nothing "usage"
done_testing

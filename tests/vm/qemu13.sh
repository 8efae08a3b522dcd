#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What restore-qemu.sh and snap-qemu.sh prove with the QEMU of this machine, as far as the one
# of Debian 13 (10.x) differs: which memory it leaves out of its state, NUMA, memory that is
# plugged in, and files that it wrote with mapped-ram.
. "${abs_top_srcdir:?}/tests/lib/qemu-guest.sh"
requires socat
qemu13=$("$abs_top_srcdir/tests/guest/build-qemu13" 2>"$tmp/build") ||
    skip_all "no QEMU of Debian 13: $(tail -n 1 "$tmp/build")"
PATH=${qemu13%/*}:$PATH
echo "# $(qemu-system-x86_64 --version | head -n 1)"

ask() { # MONITOR COMMAND...: the answer to the last, in JSON
    asked=$1
    shift
    { printf '{"execute":"qmp_capabilities"}' && printf '%s' "$@"; } |
        socat -t 1 - "UNIX-CONNECT:$asked" | tail -n 1
}
migrated() { ask "$1" '{"execute":"query-migrate"}' | grep -q '"status": "completed"'; }

# What it sends though it is shared, one kind of memory and machine each.
ram=memory-backend-memfd
whole_way q35
check "lazily" grep -q '"engine": "continue"' "$tmp/stats"
t "the state has no RAM" 0 gmem-inspect extract "$tmp/q35.gmem" --state device -o "$tmp/device"
check "but is small" test "$(stat -c %s "$tmp/device")" -lt 2000000
ram=memory-backend-shm
whole_way pc --eager
ram=memory-backend-file,mem-path=$shm
whole_way microvm

# Two nodes, one of each kind; the guest's memory is in both.
object=
nodes="-numa node,memdev=n0 -numa node,memdev=n1"
# shellcheck disable=SC2086
boot q35 -object memory-backend-memfd,id=n0,size=64M,share=on \
    -object "memory-backend-file,id=n1,size=96M,share=on,mem-path=$shm.n1" $nodes
check "two nodes: a guest boots" patiently sums "$tmp/s1" 1
t "two nodes: saved" 0 gmem-snap --qmp "$tmp/q1" -o "$tmp/numa.gmem"
kill -KILL "$qemu"
wait "$qemu" 2>/dev/null
# shellcheck disable=SC2086
restore q35 "$tmp/numa.gmem" "$tmp/s2" "" \
    -object "memory-backend-file,id=n0,size=64M,share=on,mem-path={mem:n0}" \
    -object "memory-backend-file,id=n1,size=96M,share=on,mem-path={mem:n1}" $nodes
check "two nodes: the guest's memory is right" all_right "$tmp/s2" 2
end_vm

# Memory without a backend, in a file that QEMU wrote while the guest ran.
boot q35 -name mapped
check "mapped-ram: a guest boots" patiently sums "$tmp/s1" 1
ask "$tmp/q1" '{"execute":"migrate-set-capabilities","arguments":{"capabilities":
[{"capability":"mapped-ram","state":true}]}}' \
    "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"file:$tmp/mapped\"}}" >"$tmp/answer"
check "mapped-ram: QEMU saved it" patiently migrated "$tmp/q1"
low=$(last_counter "$tmp/s1")
kill -KILL "$qemu"
wait "$qemu" 2>/dev/null
t "mapped-ram: it is imported" 0 gmem-snap --mapped-ram "$tmp/mapped" -o "$tmp/mapped.gmem"
t "mapped-ram: is whole" 0 gmem-inspect verify "$tmp/mapped.gmem"
t "mapped-ram: info" 0 gmem-inspect info "$tmp/mapped.gmem"
check "mapped-ram: has the guest's RAM" grep -q 'pc.ram' "$out"
check "mapped-ram: and the machine" grep -q 'pc-q35-10' "$out"
object=pc.ram
restore q35 "$tmp/mapped.gmem" "$tmp/s2" "" -name mapped \
    -object "memory-backend-file,id=pc.ram,size=${mib}M,share=on,mem-path={mem}"
check "mapped-ram: the guest runs" patiently counts "$tmp/s2"
check "mapped-ram: its counter goes on" between "$low" "$(first_counter "$tmp/s2")" $((low + 2))
check "mapped-ram: its memory is right" all_right "$tmp/s2" 2
check "mapped-ram: lazily" grep -q '"engine": "continue"' "$tmp/stats"
end_vm
check "nothing is left running" none_left
done_testing

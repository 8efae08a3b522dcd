# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2034,SC2154  # these are of suite, and of one another
# The guests of the suite: boot them to the point where they wait, snapshot them, and have
# them tell what is right.  Sourced by suite.

declare -A memory_mib=([idle]=256 [python]=512 [redis]=512 [node]=512)

# machine WORKLOAD: sets machine=(…), what source and restored VM have in common; the
# source has the kernel as well, in kernel=(…).
machine()
{
	local dir args=() i
	dir=$("$here/guest/build-workload" "$1" 2>"$tmp/build.log") || {
		reason="no guest: $(tail -n 1 "$tmp/build.log")"
		return 1
	}
	mapfile -t args < <("$here/../guest/qemu-args" "$dir" "${memory_mib[$1]}" microvm)
	machine=() kernel=()
	for ((i = 0; i < ${#args[@]}; i++)); do
		case ${args[i]} in
			-kernel | -initrd | -append) kernel+=("${args[i]}" "${args[++i]}") ;;
			*) machine+=("${args[i]}") ;;
		esac
	done
}

# await SECONDS COMMAND…
await()
{
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

# All of the line with the answer to a seed is in the guest's log.
answered() { grep -Eq "GUEST ANSWER $1 [0-9a-f]{64}" "$tmp/serial.log"; }

# tell LINE: to the guest, by a socket that is open as descriptor 7 all the time.
tell() { echo "$1" >&7; }

# ask_source SEED: its answer by a VM that was never restored, in answers/SEED
ask_source()
{
	tell "work $1"
	await 120 answered "$1" || return 1
	sed -n "s/.*GUEST ANSWER \($1 [0-9a-f]*\).*/\1/p" "$tmp/serial.log" | head -n 1 \
		>"$store/answers/$1"
}

# boot_and_snapshot WORKLOAD SEED…: fills $store with images and right answers.
boot_and_snapshot()
{
	local workload=$1 qemu seed
	shift
	rm -rf "$store"
	mkdir -p "$store/answers"
	rm -f "$tmp"/serial.* "$tmp/source.qmp"
	mkfifo "$tmp/serial.in" "$tmp/serial.out"
	: >"$tmp/serial.log"
	cat "$tmp/serial.out" >"$tmp/serial.log" &
	qemu-system-x86_64 "${machine[@]}" "${kernel[@]}" \
		-object "memory-backend-memfd,id=ram0,size=${memory_mib[$workload]}M,share=on" \
		-chardev "pipe,id=serial,path=$tmp/serial" -serial chardev:serial \
		-qmp "unix:$tmp/source.qmp,server=on,wait=off" 2>"$tmp/source.err" &
	qemu=$!
	exec 7<>"$tmp/serial.in"
	reason=
	if ! await 240 grep -q 'GUEST READY' "$tmp/serial.log"; then
		reason="the guest does not get ready: $(cat "$tmp/serial.log" "$tmp/source.err" |
			tail -n 1)"
	else
		sleep 1 # for what it does after the line
		snapshots && for seed; do
			ask_source "$seed" || reason="the guest does not answer"
		done
	fi
	kill -KILL $qemu
	wait $qemu 2>/dev/null
	exec 7>&-
	[ -z "$reason" ]
}

# The raw files are made of the first; the others are of the same guest a moment later.
snapshots()
{
	local size option
	for size in default 4K 2M; do
		option=()
		[ $size = default ] || option=(--chunk-size "$size")
		gmem-snap -q -f --leave running --qmp "$tmp/source.qmp" "${option[@]}" \
			-o "$store/$size.gmem" || {
			reason="no snapshot"
			return 1
		}
	done
}

# record TRACE SEED: what the guest touches until it has answered.
record()
{
	drive "$2" -- gmem-restore -q --record "$1" --qmp "$tmp/g.qmp" "$store/default.gmem" -- \
		qemu-system-x86_64 "${machine[@]}" "${shared_memory[@]}" "${lines[@]}" \
		-qmp "unix:$tmp/g.qmp,server=on,wait=off" -incoming defer >"$tmp/record.json"
}

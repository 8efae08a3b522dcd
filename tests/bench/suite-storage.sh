# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2034,SC2154  # these are of suite, and of one another
# Where the files of the suite lie, and what of them is in memory.  Sourced by suite.
#
#   cached  a file system of this machine (BENCH_DIR), all of the file in the page cache
#   cold    the same, nothing of it in the page cache
#   slow    not in the page cache, on a device of BENCH_SLOW MB/s (100): a loop device whose
#           reads a cgroup limits.  The file behind it is in memory, so it is no slower.

slow_rate=$((${BENCH_SLOW:-100} * 1000000))
cgroup=
first=
loops=()
mounts=()

storage_clean()
{
	local i
	for ((i = ${#mounts[@]}; i-- > 0;)); do
		umount "${mounts[i]}" 2>/dev/null || umount -l "${mounts[i]}" || :
	done
	for i in "${loops[@]}"; do
		losetup -d "$i" 2>/dev/null || :
	done
	mounts=() loops=()
	[ -z "$cgroup" ] || rmdir "$cgroup" 2>/dev/null || :
	cgroup=
}

# attach FILE OPTION…: sets loop, a device of it
attach()
{
	loop=$(losetup -f --show "${@:2}" "$1" 2>"$tmp/losetup.err") || {
		reason="no loop device: $(cat "$tmp/losetup.err")"
		return 1
	}
	loops+=("$loop")
}

# mount_image TYPE FILE DIR ro|rw: by a loop device
mount_image()
{
	local read_only=()
	[ "$4" = rw ] || read_only=(-r)
	attach "$2" "${read_only[@]}" || return 1
	mkdir -p "$3"
	mount -t "$1" -o "$4,noatime" "$loop" "$3" 2>"$tmp/mount.err" || {
		reason="cannot mount $1: $(head -n 1 "$tmp/mount.err")"
		return 1
	}
	mounts+=("$3")
}

# A cgroup that reads devices slowly; processes enter it by enter_cgroup.
make_cgroup()
{
	local v1=/sys/fs/cgroup/blkio v2=/sys/fs/cgroup
	[ "$(id -u)" -eq 0 ] || { reason="only root may limit a device"; return 1; }
	if [ -e $v1/blkio.throttle.read_bps_device ]; then
		cgroup=$v1/gmem-bench-$$
	elif grep -qw io $v2/cgroup.controllers 2>/dev/null &&
		echo +io >$v2/cgroup.subtree_control 2>/dev/null; then
		cgroup=$v2/gmem-bench-$$
	else
		reason="no cgroup limits devices here"
		return 1
	fi
	mkdir "$cgroup" 2>/dev/null || { reason="cannot create $cgroup"; cgroup=; return 1; }
}

# What is measured goes before all else on this machine; within it, priorities are as ever.
go_first()
{
	[ -e /sys/fs/cgroup/cpu/cpu.shares ] || {
		echo "BENCH_FIRST: no cgroup for CPUs (version 1)" >&2
		return 1
	}
	first=/sys/fs/cgroup/cpu/gmem-bench-$$
	mkdir "$first" && echo 262144 >"$first/cpu.shares"
}

# limit DEVICE: reads of it from within the cgroup
limit()
{
	local number
	number=$((0x$(stat -c %t "$1"))):$((0x$(stat -c %T "$1")))
	if [ -e "$cgroup/blkio.throttle.read_bps_device" ]; then
		echo "$number $slow_rate" >"$cgroup/blkio.throttle.read_bps_device"
	else
		echo "$number rbps=$slow_rate" >"$cgroup/io.max"
	fi || { reason="$cgroup does not limit $1"; return 1; }
}

# make_slow: copies $store to a slow file system at $slow.  false: $reason
make_slow()
{
	local blocks
	[ -n "$cgroup" ] || make_cgroup || return 1
	blocks=$(($(du -s --block-size=1M "$store" | cut -f 1) * 11 / 10 + 64))
	rm -f "$tmp/slow.img"
	mke2fs -q -F -t ext4 -O ^has_journal -d "$store" "$tmp/slow.img" "${blocks}M" \
		>"$tmp/mke2fs.log" 2>&1 || {
		reason="no file system: $(head -n 1 "$tmp/mke2fs.log")"
		return 1
	}
	cat "$tmp/slow.img" >/dev/null
	# QEMU opens what it maps privately for writing, so read-only won't do.
	mount_image ext4 "$tmp/slow.img" "$tmp/slow" rw || return 1
	limit "$loop"
}

# within STATE COMMAND…: in the cgroups for it
within()
{
	local state=$1
	shift
	(
		[ "$state" != slow ] || echo $BASHPID >"$cgroup/cgroup.procs" || exit
		[ -z "$first" ] || echo $BASHPID >"$first/cgroup.procs" || exit
		exec "$@"
	)
}

# drop FILE: nothing of it in the page cache
drop()
{
	dd if="$1" iflag=nocache count=0 status=none
	[ "$(fincore -nbo RES "$1" | tr -d ' ')" = 0 ] || {
		# Those that are written back only now, or lie in a file system of memory.
		sync "$1"
		dd if="$1" iflag=nocache count=0 status=none
		[ "$(fincore -nbo RES "$1" | tr -d ' ')" = 0 ]
	}
}

# prepare_state STATE FILE…: false if it cannot be had
prepare_state()
{
	local state=$1 file
	shift
	for file; do
		case $state in
			cached) cat "$file" >/dev/null ;;
			*) drop "$file" || { reason="$file stays in the page cache"; return 1; } ;;
		esac
	done
	if [ "$state" != cached ]; then
		for file in "${loops[@]}"; do
			blockdev --flushbufs "$file" 2>/dev/null || :
		done
	fi
}

# rate STATE FILE: prints MB/s of read(2), and of a mapping that is read
rate()
{
	local began end size
	size=$(stat -c %s "$2")
	prepare_state "$1" "$2" || return 1
	began=$EPOCHREALTIME
	within "$1" cat "$2" >/dev/null
	end=$EPOCHREALTIME
	echo "$size $began $end" | awk '{ printf "%.0f", $1 / ($3 - $2) / 1e6 }'
}

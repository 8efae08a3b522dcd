# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2034,SC2154  # these are of suite, and of one another
# Who restores the guests, and from which files.  Sourced by suite.
#
# peer NAME DIRECTORY: sets files=(…), what it reads from storage; drive_options=(…); and
# command=(…), what is started; and stored=(…), if that is not files.  false: it is not to be had, for $reason.

peers_of_others="raw-mmap raw-read raw-copy raw-continue zstd-read lz4-read qemu-zstd squashfs erofs criu"
peers_of_ours="gmem gmem-lazy gmem-eager gmem-hot gmem-hot-lazy gmem-4k gmem-4k-hot gmem-2m gmem-2m-hot"
# raw-continue is left out for time: raw-copy tells the same.
peers_default="${peers_of_others/ raw-continue/} $peers_of_ours"
peers_quick="raw-mmap raw-copy zstd-read qemu-zstd squashfs gmem gmem-lazy gmem-hot gmem-hot-lazy"

has_option() { gmem-restore --help | grep -q -e "^ *$1 "; }
can_record() { has_option --record && gmem-snap --help | grep -q -e '--hot'; }

# wants NAME…: one of these peers is to be measured
wants()
{
	local name
	for name; do
		[[ " ${peers[*]} " != *" $name "* ]] || return 0
	done
	return 1
}

# make_files SEED…: all that any of the peers reads, in $store.  What cannot be made is
# missing, and $store/KIND.why tells why.
make_files()
{
	local kind
	gmem-inspect -q extract "$store/default.gmem" -o "$store/raw"
	gmem-inspect -q extract --state "$(state_name)" "$store/default.gmem" -o "$store/state"
	# Of every guest: by it the storage is measured.
	zstd -q -f -1 -T0 "$store/raw" -o "$store/raw.zst"
	! wants lz4-read || lz4 -q -f "$store/raw" "$store/raw.lz4" 2>"$tmp/lz4.err" ||
		echo "lz4 is not installed, or fails" >"$store/lz4.why"
	! wants qemu-zstd || make_migration || echo "$reason" >"$store/migration.why"
	! wants squashfs erofs || make_compressed_fs
	# The names of peers and images differ only by what is the default.
	! wants gmem-hot gmem-hot-lazy || make_hot default "$@"
	for kind in 4k 2m; do
		! wants gmem-$kind-hot || make_hot ${kind^^} "$@"
	done
}

state_name() { gmem-inspect --json info "$store/default.gmem" | jq -r '.states[0].name'; }

# QEMU's own file, of the same instant: what we restored from, saved again.
make_migration()
{
	gmem-bench-drive --qmp "$tmp/r.qmp" --incoming "exec:cat $store/state" \
		--save "exec:zstd -q -1 -T0 > $store/migration.zst" -- \
		qemu-system-x86_64 "${machine[@]}" "${private_memory[@]}" "${lines[@]}" \
		-incoming defer 2>"$tmp/migration.err" || {
		reason="QEMU does not save: $(tail -n 1 "$tmp/migration.err")"
		return 1
	}
}

make_compressed_fs()
{
	local tools
	tools=$("$here/guest/build-tools" 2>"$tmp/tools.log") || {
		tail -n 1 "$tmp/tools.log" | tee "$store/squashfs.why" >"$store/erofs.why"
		return
	}
	mkdir -p "$tmp/fs"
	ln -f "$store/raw" "$tmp/fs/raw"
	"$tools/mksquashfs" "$tmp/fs" "$store/squashfs.img" -comp zstd -noappend -quiet \
		-no-progress >"$tmp/mksquashfs.log" 2>&1 ||
		echo "mksquashfs: $(tail -n 1 "$tmp/mksquashfs.log")" >"$store/squashfs.why"
	# zstd if this mkfs.erofs knows it (1.8), else what the kernel's oldest has.
	"$tools/mkfs.erofs" -zzstd "$store/erofs.img" "$tmp/fs" >"$tmp/mkerofs.log" 2>&1 ||
		"$tools/mkfs.erofs" -zlz4hc -C65536 "$store/erofs.img" "$tmp/fs" \
			>"$tmp/mkerofs.log" 2>&1 ||
		echo "mkfs.erofs: $(tail -n 1 "$tmp/mkerofs.log")" >"$store/erofs.why"
	rm -rf "$tmp/fs"
}

# make_hot CHUNKS SEED…: with the working sets of other requests than those that are measured
make_hot()
{
	local chunks=$1 seed hot=()
	shift
	if ! can_record; then
		echo "this build does not record" >"$store/$chunks-hot.why"
		return
	fi
	for seed; do
		[ -e "$store/trace.$seed" ] || record "$store/trace.$seed" "$seed" 2>"$tmp/record.err" || {
			echo "no trace: $(tail -n 1 "$tmp/record.err")" >"$store/$chunks-hot.why"
			return
		}
		hot+=(--hot "$store/trace.$seed")
	done
	gmem-snap -q -f --from "$store/$chunks.gmem" "${hot[@]}" -o "$store/$chunks-hot.gmem" \
		2>"$tmp/hot.err" ||
		echo "no hot section: $(tail -n 1 "$tmp/hot.err")" >"$store/$chunks-hot.why"
}

# want FILE WHY: files+=FILE, or the reason why it is not there
want()
{
	[ -e "$dir/$1" ] || { reason=$(cat "$store/$2.why" 2>/dev/null || echo "no $1"); return 1; }
	files+=("$dir/$1")
}

# qemu MEMORY…: command=(…) that ends in a QEMU that waits for its state
qemu() { command+=(qemu-system-x86_64 "${machine[@]}" "$@" "${lines[@]}" -incoming defer); }

# file_memory SHARE PATH: sets memory=(…)
file_memory()
{
	memory=(-object "memory-backend-file,id=ram0,size=${mib}M,share=$1,mem-path=$2")
}

# after SCRIPT: sh runs that first, with $1 the input and $2 where the memory is to be
after()
{
	rm -f "$shm"
	command=(sh -c "$1"' || exit; shift 2; exec "$@"' sh "${files[1]}" "$shm")
	file_memory on "$shm"
	qemu "${memory[@]}"
}

# compressed TYPE: a raw file in a mounted file system
compressed()
{
	local at=$tmp/$1.$state
	want "$1.img" "$1" || return 1
	if ! [ -e "$at/raw" ]; then
		grep -qw "$1" /proc/filesystems || modprobe "$1" 2>/dev/null || :
		mount_image "$1" "$dir/$1.img" "$at" ro || return 1
		[ "$state" != slow ] || limit "$loop"
	fi
	stored=("${files[@]}")
	files+=("$at/raw")
	file_memory off "$at/raw"
	command=(env LD_PRELOAD="$(command -v gmem-bench-open-readonly.so)")
	qemu "${memory[@]}"
}

# ours IMAGE WHY OPTION…
ours()
{
	local image=$1 why=$2
	shift 2
	files=()
	want "$image" "$why" || return 1
	drive_options=()
	command=(gmem-restore -q --stats "$tmp/stats.json" --qmp "$tmp/g.qmp" "$@" "${files[0]}" --)
	file_memory on '{mem}'
	qemu "${memory[@]}" -qmp "unix:$tmp/g.qmp,server=on,wait=off"
}

hot_options() { hot=(); ! has_option --prefetch || hot=(--prefetch hot); }

peer()
{
	local dir=$2 memory hot
	files=("$dir/state") command=() drive_options=(--incoming "exec:cat $dir/state")
	stored=()
	hot_options
	case $1 in
		raw-mmap)
			want raw raw || return 1
			file_memory off "$dir/raw"
			qemu "${memory[@]}"
			;;
		raw-read) want raw raw && after 'cp "$1" "$2"' ;;
		raw-copy | raw-continue)
			want raw raw || return 1
			command=(gmem-bench-raw-server)
			[ "$1" = raw-copy ] || command+=(--continue)
			command+=("$dir/raw")
			file_memory on '{mem}'
			qemu "${memory[@]}"
			;;
		zstd-read) want raw.zst zstd && after 'zstd -q -dc "$1" >"$2"' ;;
		lz4-read) want raw.lz4 lz4 && after 'lz4 -q -dc "$1" >"$2"' ;;
		qemu-zstd)
			files=()
			want migration.zst migration || return 1
			drive_options=(--whole --incoming "exec:zstd -q -dc $dir/migration.zst")
			qemu -object "memory-backend-memfd,id=ram0,size=${mib}M,share=on"
			;;
		squashfs | erofs) compressed "$1" ;;
		criu) criu_peer ;;
		gmem) ours default.gmem default ;;
		gmem-lazy) ours default.gmem default --no-background ;;
		gmem-eager) ours default.gmem default --eager ;;
		gmem-hot) ours default-hot.gmem default-hot "${hot[@]}" ;;
		gmem-hot-lazy) ours default-hot.gmem default-hot "${hot[@]}" --no-background ;;
		gmem-4k) ours 4K.gmem 4K ;;
		gmem-4k-hot) ours 4K-hot.gmem 4K-hot "${hot[@]}" ;;
		gmem-2m) ours 2M.gmem 2M ;;
		gmem-2m-hot) ours 2M-hot.gmem 2M-hot "${hot[@]}" ;;
		*) reason="nobody knows it"; return 1 ;;
	esac
}

# It would have to dump and restore the QEMU process: whether it can serve memory here at all.
criu_peer()
{
	local tools
	tools=$("$here/guest/build-tools" 2>/dev/null) || { reason="no criu"; return 1; }
	"$tools/criu" check --feature uffd-noncoop >"$tmp/criu.err" 2>&1 || {
		reason="criu check: $(grep -o 'Error.*' "$tmp/criu.err" |
			grep -v ' exited' | head -n 1)"
		return 1
	}
	reason="not written: criu runs nowhere where this suite was made"
	return 1
}

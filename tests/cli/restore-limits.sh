#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Limits that are too low are found before the VMM starts, and said in words.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd
requires prlimit

image a 65536 ram=memfd,8,12,2
image two 2097152 left=memfd,4,12,2 right=memfd,4,12,3
big=$image
small=$tmp/a.gmem

# A VMM that was started would be seen.
limited() { # NAME STATUS LIMIT COMMAND...: with what prlimit sets
    limited_name=$1 limited_status=$2 limited_by=$3
    shift 3
    # shellcheck disable=SC2086
    t "$limited_name" "$limited_status" timeout -k 5 "$patience" prlimit $limited_by "$@"
}
refused() { # NAME LIMIT TEXT [OPTION...]
    refused_name=$1 refused_by=$2 refused_text=$3
    shift 3
    limited "$refused_name" 1 "$refused_by" gmem-restore "$@" -- touch "$tmp/started" '{mem}'
    check "$refused_name: is said" grep -Eq "$refused_text" "$err"
    check "$refused_name: in one line" lines 1 "$err"
    check "$refused_name: no VMM was started" test ! -e "$tmp/started"
}
touches() { # NAME LIMIT [OPTION...]: it is served all the same
    touches_name=$1 touches_by=$2
    shift 2
    limited "$touches_name" 0 "$touches_by" gmem-restore "$@" -- \
        vmm-touch open='{mem}' pattern=2,12 map touch=2
}

refused "few descriptors" --nofile=300 \
    'RLIMIT_NOFILE allows 300 descriptors, [0-9]+ are needed: raise it \(ulimit -n\)' "$small"
refused "very few descriptors" --nofile=20 'RLIMIT_NOFILE allows 20 descriptors' "$small"
touches "enough descriptors" --nofile=330 "$small"
refused "small files" --fsize=8388607 \
    'RLIMIT_FSIZE allows files of 8388607 bytes, .* of 8388608: raise it' "$small"
touches "files as large as its memory" --fsize=8388608 "$small"

# A guest of nothing but zeros, with more memory than the VMM may have addresses.
truncate -s 64G "$tmp/zeros"
gmem-snap -q --file "ram=$tmp/zeros" -o "$tmp/large.gmem" || exit 99
case $GMEM_SANITIZERS in
    "" | no) refused "a small address space" --as=30000000000:30000000000 \
        'RLIMIT_AS allows the VMM 30000000000 bytes of addresses, its guest has 68719476736' \
        "$tmp/large.gmem" ;;
    *) skip "a small address space" "the sanitizers want more" ;;
esac

# What root may, CAP_IPC_LOCK, is a limit to everybody else.
locked() { # NAME STATUS LIMIT [OPTION...]
    locked_name=$1 locked_status=$2 locked_by=$3
    shift 3
    # shellcheck disable=SC2086
    limited "$locked_name" "$locked_status" "--memlock=$locked_by" $without gmem-restore "$@" -- \
        touch "$tmp/started" '{mem:left}' '{mem:right}'
}
without=
if [ "$(id -u)" = 0 ]; then
    without="setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock"
    # shellcheck disable=SC2086
    $without true 2>/dev/null || without=none
fi
if [ "$without" = none ]; then
    skip "locked memory" "setpriv cannot take CAP_IPC_LOCK away"
else
    locked "little locked memory" 1 8388608 "$big" --threads 4
    check "says how much would do" grep -Eq \
        'RLIMIT_MEMLOCK allows 8388608 bytes to be locked, the page server locks at least 18874368: raise it \(ulimit -l\), or have fewer threads$' "$err"
    check "no VMM was started" test ! -e "$tmp/started"
    locked "little locked memory, with background" 1 8388608 "$big" --threads 16 --background on
    check "says it too" grep -q 'RLIMIT_MEMLOCK allows' "$err"
    locked "eagerly it is not wanted" 0 8388608 "$big" --threads 4 --eager
    rm -f "$tmp/started"
fi

# Our cgroup, if one can be made with such a limit.
cg=$(sed -n 's/^[^ ]* \([^ ]*\) cgroup2 .*/\1/p' /proc/mounts | head -n 1)
in_cgroup() { # COMMAND...
    sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cg/gmem-test-$$" "$@"
}
if grep -qw memory "$cg/cgroup.controllers" 2>/dev/null &&
    echo +memory 2>/dev/null >"$cg/cgroup.subtree_control" && mkdir "$cg/gmem-test-$$" 2>/dev/null; then
    echo 4M >"$cg/gmem-test-$$/memory.max"
    echo 0 2>/dev/null >"$cg/gmem-test-$$/memory.swap.max"
    image full 65536 ram=memfd,16,80,2
    rm -f "$tmp/started"
    t "a small cgroup" 1 in_cgroup gmem-restore "$image" -- touch "$tmp/started" '{mem}'
    check "is said" grep -Eq "gmem-test-$$/memory.max allows 4194304 bytes, and [0-9]+ of the guest's memory" "$err"
    check "no VMM was started" test ! -e "$tmp/started"
    t "nothing in the background" 0 in_cgroup gmem-restore "$small" --no-background -- true '{mem}'
    check "is warned of" grep -q 'has 8388608 of memory, which is charged there' "$err"
    rmdir "$cg/gmem-test-$$"
else
    skip "a small cgroup" "no cgroup of version 2 with memory to write to"
fi

# Memory of the VMM's own in a file, on a file system that has no room for it.
mkdir "$tmp/mnt"
if mount -t tmpfs -o size=2M none "$tmp/mnt" 2>/dev/null; then
    OWN_FILE=$tmp/mnt/memory
    export OWN_FILE
    t "a full tmpfs" 1 timeout -k 5 "$patience" gmem-restore --vmm handoff "$small" -- \
        vmm-touch own=file,8 pattern=2,12 map touch=2
    check "is said" grep -Eq 'memory ram is a file where there is room for [0-9]+ bytes, and [0-9]+ are' "$err"
    rm -f "$OWN_FILE"
    mount -o remount,size=16M "$tmp/mnt"
    t "room enough" 0 timeout -k 5 "$patience" gmem-restore --vmm handoff "$small" -- \
        vmm-touch own=file,8 pattern=2,12 map touch=2
    umount "$tmp/mnt"
else
    skip "a full tmpfs" "only root may mount one"
fi

touches "no limit" --core=0 "$small"
check "no warning" test ! -s "$err"
check "nobody is left" none_left
done_testing

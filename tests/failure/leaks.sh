#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2034,SC2086
# Many restores and snapshots in a row, killed ones among them: no process, page, or file is
# left, and no gmem-restore has more descriptors than the first.  GMEM_TEST_RESTORES of each (100; CI 1000).
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
needs_userfaultfd
default=100
[ "$CI" != true ] || default=1000
times=${GMEM_TEST_RESTORES:-$default}
image tiny 4096 ram=memfd,1,20,2

# Others use the same folders and the same memory: only what stays counts, and what is ours.
files() { find "${TMPDIR:-/tmp}" /tmp /dev/shm "${XDG_RUNTIME_DIR:-/run/gmem}" -maxdepth 1 \
    -name 'gmem-*' ! -name 'gmem-test.*' 2>/dev/null | sort -u; }
shmem() { awk '/^Shmem:/ { print int($2 / 1024) }' /proc/meminfo; }
files >"$tmp/before"
first=$(shmem)

descriptors() { # of $restore, without its threads' races: the least of some looks
    least=999
    for _ in 1 2 3 4 5; do
        n=$(find "/proc/$restore/fd" -mindepth 1 2>/dev/null | wc -l)
        [ "$n" -ge $least ] || [ "$n" -eq 0 ] || least=$n
    done
    echo $least
}
wrong=0 many=0 i=0 base=
while [ $i -lt "$times" ]; do
    i=$((i + 1))
    rm -f "$tmp/pid"
    case $((i % 4)) in
    0) # killed
        gmem-restore "$image" -- vmm-touch "pid=$tmp/pid" 'open={mem}' pattern=2,20 map touch=1 \
            forever >"$tmp/says" 2>&1 &
        restore=$!
        await test -s "$tmp/pid"
        n=$(descriptors)
        base=${base:-$n}
        [ "$n" -le $((base + 2)) ] || many=$((many + 1))
        kill -KILL $restore
        wait $restore 2>/dev/null
        ! grep -q MISMATCH "$tmp/says" || wrong=$((wrong + 1))
        ;;
    *)
        options=--no-background
        [ $((i % 4)) -ne 1 ] || options=--eager
        gmem-restore $options "$image" -- vmm-touch 'open={mem}' pattern=2,20 map touch=1 \
            >"$tmp/says" 2>&1 || wrong=$((wrong + 1))
        ;;
    esac
done
check "$times restores: all right" test $wrong -eq 0
check "as many descriptors as the first" test $many -eq 0

# A process that lives through them all has what it had.
mkfifo "$tmp/ready"
hold-memory "$tmp=1" >"$tmp/ready" 2>"$err" &
held=$!
read -r answer <"$tmp/ready"
opened() { find "/proc/$held/fd" -mindepth 1 | wc -l; }
had=$(opened) i=0 wrong=0
# The guardian of the one that was killed before may be at it still.
again() {
    if ! grep -q 'saved by another gmem-snap' "$err" ||
        ! await gmem-snap -q --pid $held --pause stop -f -o "$tmp/i" 2>"$err"; then
        wrong=$((wrong + 1))
        sed 's/^/# /' "$err"
    fi
}
while [ $i -lt "$times" ]; do
    i=$((i + 1))
    gmem-snap -q --pid $held --pause stop -f -o "$tmp/i" 2>"$err" &
    snap=$!
    if [ $((i % 4)) -eq 0 ]; then
        sleep "0.00$((i / 4 % 10))"
        kill -KILL $snap 2>/dev/null
        wait $snap 2>/dev/null
        # Its guardian lets it run a moment later, and nobody may be in between.
        await lacks '^State:.*[Tt] (' "/proc/$held/status" || wrong=$((wrong + 1))
    else
        wait $snap || again
    fi
done
check "$times snapshots: all right" test $wrong -eq 0
check "the process has the descriptors that it had" test "$(opened)" -eq "$had"
check "it runs" lacks '^State:.*[Tt] (' "/proc/$held/status"
# Between the name beside it and its own: SIGKILL may leave the first.
check "the image is whole" gmem-inspect verify -q "$tmp/i"
kill -KILL $held
wait $held 2>/dev/null

nothing_new() { files | comm -13 "$tmp/before" - | { ! grep .; }; }
check "no file is left" await nothing_new
check "no process is left" await none_left
rm -f "$tmp/i"
little() { [ "$(shmem)" -le $((first + 64)) ]; }
if [ "$times" -ge 1000 ]; then
    # A restore has 1 MiB and its claims.
    check "no page is left" await little
fi
done_testing

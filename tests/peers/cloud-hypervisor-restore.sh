#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-restore --vmm cloud-hypervisor against a stand-in that has Cloud Hypervisor's ends of
# the protocol, of each version, and many ways to be wrong.  Its guest looks at every byte.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
# shellcheck disable=SC2154
api=$tmp/api.sock
needs_userfaultfd

# take NAME OPTION...: $tmp/NAME.gmem
take() {
    take_image=$tmp/$1.gmem
    shift
    rm -f "$api"
    timeout -k 5 "$patience" stand-in-cloud-hypervisor --api-socket "$api" "$@" \
        >"$tmp/vmm.out" 2>&1 &
    await test -S "$api"
    gmem-snap -q --cloud-hypervisor "$api" --leave quit -o "$take_image" || exit 99
    wait $!
}
take shared --memory size=32M,shared=on --slots 4 --gap 1M --seed 3
take private --memory size=32M --slots 4 --gap 1M --seed 4
take zones --memory size=0 --memory-zone id=a,size=8M,shared=on \
    --memory-zone id=b,size=8M,shared=on --hole 4M --seed 5
take many --memory size=16M,shared=on --slots 16 --gap 64K --seed 6
take prefault --memory size=8M,shared=on --prefault
take prefault-private --memory size=8M --prefault
take small --memory size=8M,shared=on --slots 3
take small-private --memory size=8M --slots 3

TMPDIR=$tmp/private
export TMPDIR
mkdir "$TMPDIR" || exit 99

# restore NAME STATUS IMAGE OPTION... -- OPTION OF THE VMM...
restore() {
    name=$1 status=$2 restore_image=$tmp/$3.gmem
    shift 3
    restore_options=
    while [ "$1" != -- ]; do
        restore_options="$restore_options $1"
        shift
    done
    shift
    rm -f "$api"
    # shellcheck disable=SC2086
    t "$name" "$status" timeout -k 5 "$patience" gmem-restore $restore_options \
        "$restore_image" --vmm cloud-hypervisor -- \
        stand-in-cloud-hypervisor --api-socket "$api" "$@"
}
# shellcheck disable=SC2154
right() { grep -q 'pages right' "$out"; }
# shellcheck disable=SC2154
said() { grep -q -- "$1" "$err"; }
folder_is_empty() { test -z "$(ls -A "$TMPDIR")"; }

# ---- what it is for ----
for version in v53.0 main v54.0; do
    for memory in shared private zones many; do
        restore "$version, $memory: on demand" 0 $memory --no-background -- \
            --version-as $version
        check "$version, $memory: all of it is right" right
        check "$version, $memory: it asked for pages" \
            grep -q ' [1-9][0-9]* requests' "$out"
        restore "$version, $memory: filled behind" 0 $memory -- --version-as $version
        check "$version, $memory: all is right" right
    done
    for memory in shared private; do
        restore "$version, $memory: eager" 0 $memory --eager -- --version-as $version
        check "$version, $memory: all is right" right
        check "$version, $memory: it asked for nothing" grep -q ' 0 requests' "$out"
    done
done
for memory in shared private zones many; do
    restore "v52.0, $memory: which can't ask" 0 $memory --no-background -- \
        --version-as v52.0
    check "v52.0, $memory: all is right" right
    check "v52.0, $memory: and is told so" said "52.0.0: this version can't ask for memory"
done
check "no folder is left" folder_is_empty

# What it asks for out of turn is recorded: what its guest touched before that had its turn.
for memory in shared private; do
    restore "$memory: recording" 0 $memory --record "$tmp/t.trace" --
    check "$memory: all is right" right
    asked=$(sed -n 's/.* \([0-9]*\) faults.*/\1/p' "$out")
    gmem-inspect trace "$tmp/t.trace" >"$tmp/shown"
    kept=$(sed -n 's/^touched *\([0-9]*\) pages.*/\1/p' "$tmp/shown")
    check "$memory: $kept pages of $asked faults were recorded" \
        test "$kept" -le "$asked" -a "$kept" -gt $((asked * 9 / 10))
done

restore "faults while State is being taken, each page asked for twice" 0 shared \
    --no-background -- --state-slow=500 --fault-twice --leave-early
check "all is right" right
restore "several questions at once" 0 shared --no-background -- --fault-pipeline=8
check "all is right" right
restore "a late, slow API" 0 small -- --api-late=300 --api-slow=100
check "all is right" right

restore "a launcher made the API's socket" 0 small -- --api-launcher
check "all is right" right

rm -f "$api"
timeout -k 5 "$patience" gmem-restore --paused --stats "$tmp/stats" "$tmp/shared.gmem" -- \
    stand-in-cloud-hypervisor --api-socket "path=$api" >"$out" 2>"$err" &
restore=$!
state_is() {
    timeout 10 stand-in-cloud-hypervisor --api-socket "$api" --request GET /api/v1/vm.info |
        grep -q "\"state\":\"$1\""
}
await test -S "$api"
check "--paused; the image tells the VMM; path=" await state_is Paused
check "no VM runs" lacks 'pages right' "$out"
timeout 10 stand-in-cloud-hypervisor --api-socket "$api" --request PUT /api/v1/vm.resume >/dev/null
wait $restore
check "until it is resumed" test $? -eq 0
check "all is right" right
check "the times are told" grep -q loaded "$tmp/stats"
check "and the engine" grep -q '"engine": "source"' "$tmp/stats"
restore "statistics of private memory" 0 small-private --stats "$tmp/stats" --
check "say that it was sent" grep -q '"engine": "sent"' "$tmp/stats"

# ---- before the VMM is started ----
for memory in prefault prefault-private; do
    restore "$memory is refused" 5 $memory --no-background --
    check "$memory: and named" said 'prefault=on'
    check "$memory: there was no VMM" lacks . "$out"
    for version in v52.0 v53.0 main; do
        restore "$memory: unless everything is there before, $version" 0 $memory --eager -- \
            --version-as $version
        check "$memory: all is right, $version" right
    done
done
restore "v52.0, private, eager: without a warning" 0 private --eager -- --version-as v52.0
check "all is right" right
check "it is not told that it can't ask" lacks "can't ask" "$err"
t "no API socket" 2 gmem-restore "$tmp/small.gmem" --vmm cloud-hypervisor -- \
    stand-in-cloud-hypervisor
check "says how to tell it" said -- '--api '
t "one that is a descriptor" 2 gmem-restore "$tmp/small.gmem" -- \
    stand-in-cloud-hypervisor --api-socket fd=3
check "says how to tell it" said -- '--api '
image other 4096 ram=memfd,1,1,1
t "an image of another VMM" 1 gmem-restore "$tmp/other.gmem" --vmm cloud-hypervisor -- \
    stand-in-cloud-hypervisor --api-socket "$api"
check "is none of Cloud Hypervisor" said 'has no state "config"'

# ---- what goes wrong ----
# lie STATUS SAYS OPTION: with a second for each step; the VMM is killed at the end.
lie() {
    lie_status=$1 says=$2
    shift 2
    rm -f "$api"
    t "$lie_image: $*" "$lie_status" timeout -k 5 "$patience" vmm-drive load \
        cloud-hypervisor "$tmp/$lie_image.gmem" "${limit:-20000}" \
        stand-in-cloud-hypervisor --api-socket "$api" "$@"
    check "$lie_image: $*: says so" said "$says"
}
lie_image=small
for step in start memory-fd config state complete; do
    lie 1 'closed the connection' --close-at=$step
    lie 1 'closed the connection' --die-at=$step
    lie 1 'the VMM refused it' --error-at=$step
    lie 1 'the VMM refused it' --error-late-at=$step
    lie 3 'unknown status (21576)' --garbage-at=$step
    lie 3 'unknown status (0)' --invalid-at=$step
    lie 3 '4096 bytes that nobody asked for' --payload-at=$step
done
lie_image=small-private
for step in start config state complete; do
    lie 1 'the VMM refused it' --error-at=$step
    lie 1 'closed the connection' --die-at=$step
done
lie 1 'Memory: .*closed the connection\|closed the connection before the Memory' \
    --version-as v52.0 --close-at=memory
lie 1 'vmm.ping: .*500' --api-500
lie 1 'vmm.ping: ' --api-close=vmm.ping
lie 3 'vmm.ping: the answer is no JSON' --api-no-json=vmm.ping
lie 1 'vm.receive-migration: the VMM says 500' --api-500=vm.receive-migration
lie 5 'Cloud Hypervisor 51.0.0 is too old' --api-version=51.0.0 --api-build=v51.0

limit=1000
for lie_image in small small-private; do
    for step in start config state complete; do
        lie 1 'no answer within 1000 ms' --silent-at=$step
        lie 1 'no answer within 1000 ms' --half-at=$step --stay
    done
done
lie 1 'does not listen on .* within 1000 ms' --no-socket
lie 1 'within 1' --api-silent
lie 1 'within 1' --api-late=30000

# ---- on the fault connection ----
# fault STATUS SAYS OPTION
fault() {
    fault_status=$1 says=$2
    shift 2
    for fault_image in small small-private; do
        restore "$fault_image: $*" "$fault_status" $fault_image --no-background -- "$@"
        check "$fault_image: $*: says so" said "$says"
        check "$fault_image: $*: nothing runs" none_left
    done
}
fault 3 'which is no page of the guest' --fault-outside
fault 3 'which is no page of the guest' --fault-straddle
fault 3 'which is no page of the guest' --fault-wrap
fault 3 'which is no page of the guest' --fault-misaligned
fault 3 'which is no page of the guest' --fault-length=0
fault 3 'which is no page of the guest' --fault-length=100
fault 3 'which is no page of the guest' --fault-huge
fault 3 'sent Complete with 16 bytes' --fault-command=5
fault 3 'unknown command (77)' --fault-command=77
fault 3 'PageFault with 8 bytes' --fault-payload=8
fault 1 'the VMM abandoned it' --fault-abandon
for fault_image in small small-private; do
    restore "$fault_image: it closes the connection early, and ends" 4 $fault_image \
        --no-background -- --fault-close=5 --fault-die=999999
    check "$fault_image: nothing runs" none_left
done

# ---- an image that is damaged ----
cp "$tmp/shared.gmem" "$tmp/damaged.gmem"
at=$(($(wc -c <"$tmp/damaged.gmem") / 2))
printf '\252\252\252\252\252\252\252\252' |
    dd of="$tmp/damaged.gmem" bs=1 seek=$at conv=notrunc 2>/dev/null
restore "a damaged image" 3 damaged --no-background --
check "no wrong page was given" lacks WRONG "$out"
check "nothing runs" none_left
# ---- a VM that ends before all of it was asked for ----
ask() { timeout "$patience" stand-in-cloud-hypervisor --api-socket "$api" --request "$@"; }
is_paused() { ask GET /api/v1/vm.info | grep -q '"state":"Paused"'; }
take large --memory size=1G,shared=on --density 1
take large-private --memory size=1G --density 1
for large in large large-private; do
    rm -f "$api"
    timeout -k 5 "$patience" gmem-restore --vmm cloud-hypervisor --paused \
        "$tmp/$large.gmem" -- stand-in-cloud-hypervisor --api-socket "$api" --stay \
        >"$tmp/vmm.out" 2>&1 &
    restore=$!
    await is_paused
    check "$large: shut down in the middle" ask PUT /api/v1/vm.shutdown
    sleep 6 # LAST_MS of the fault connection, and one
    check "$large: the VMM, which has no VM any more, goes on" ask GET /api/v1/vmm.ping
    ask PUT /api/v1/vmm.shutdown >/dev/null
    check "$large: and its status is that of the restore" wait "$restore"
done

done_testing

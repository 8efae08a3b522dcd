#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --cloud-hypervisor against a stand-in that has Cloud Hypervisor's ends of the
# protocol, of each version, and many ways to be wrong.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
# shellcheck disable=SC2154
api=$tmp/api.sock image=$tmp/vm.gmem

# begin OPTION...: a VMM with a VM in the background, its API at $api
begin() {
    rm -f "$api" "$image"
    timeout -k 5 "$patience" stand-in-cloud-hypervisor --api-socket "path=$api" "$@" \
        >"$tmp/vmm.out" 2>"$tmp/vmm.err" &
    vmm=$!
    await test -S "$api" || {
        cat "$tmp/vmm.err"
        exit 99
    }
}
ask() { timeout 10 stand-in-cloud-hypervisor --api-socket "$api" --request "$@"; }
state_is() { ask GET /api/v1/vm.info | grep -q "\"state\":\"$1\""; }
stop() {
    kill "$vmm"
    wait "$vmm"
} 2>/dev/null
ended() {
    wait "$vmm"
    got=$?
    cat "$tmp/vmm.out" "$tmp/vmm.err"
    [ "$got" -eq 0 ]
}
snap() { # NAME STATUS OPTION...
    name=$1 status=$2
    shift 2
    t "$name" "$status" timeout -k 5 "$patience" \
        gmem-snap --cloud-hypervisor "$api" -o "$image" "$@"
}
# The image is whole, and a stand-in finds all that it should.
restores() {
    gmem-inspect verify -q "$image" && rm -f "$api" &&
        timeout -k 5 "$patience" gmem-restore "$image" -- \
            stand-in-cloud-hypervisor --api-socket "$api" "$@" >"$tmp/again" 2>&1 &&
        grep -q 'pages right' "$tmp/again" && return
    cat "$tmp/again"
    return 1
}
# shellcheck disable=SC2154
said() { grep -q -- "$1" "$err"; }
nothing_left() {
    test ! -e "$image" || return
    # shellcheck disable=SC2010
    ! ls -A "$TMPDIR" | grep .
}
TMPDIR=$tmp/private
export TMPDIR
mkdir "$TMPDIR" || exit 99

# ---- what it is for ----
needs_userfaultfd
for version in v52.0 v53.0 main v54.0; do
    for memory in size=32M,shared=on size=32M; do
        begin --version-as $version --memory "$memory" --slots 4 --gap 1M \
            --guest-writes 20000 --seed 7
        snap "$version, $memory: saved while it runs" 0
        check "$version, $memory: it runs on" state_is Running
        stop
        check "$version, $memory: restored" restores
        begin --version-as $version --memory "$memory" --seed 8
        snap "$version, $memory: left paused" 0 --leave paused
        check "$version, $memory: it is paused" state_is Paused
        rm "$image"
        snap "$version, $memory: a paused one" 0
        check "$version, $memory: it stays paused" state_is Paused
        rm "$image"
        snap "$version, $memory: a paused one, left running" 0 --leave running
        check "$version, $memory: it runs" state_is Running
        rm "$image"
        snap "$version, $memory: and ended" 0 --leave quit
        check "$version, $memory: it has ended" ended
        check "$version, $memory: restored again" restores
    done
done
check "no folder is left" test -z "$(ls -A "$TMPDIR")"

# What they call themselves: a vendor's tag, and one that was built without git.
for version in "v52.0 v120.1 52.0.0" "v53.0 v120.1 53.0.0" "v53.0 v54.0.0 54.0.0"; do
    # shellcheck disable=SC2086
    set -- $version
    begin --version-as "$1" --api-build="$2" --api-version="$3" --memory size=8M,shared=on
    snap "$version: saved" 0
    check "$version: it runs on" state_is Running
    rm "$image"
    snap "$version: left paused" 0 --leave paused
    check "$version: it is paused" state_is Paused
    stop
done

begin --memory size=16M,shared=on
snap "the image" 0 --leave quit
wait "$vmm"
# shellcheck disable=SC2154
check "tells of the VMM" gmem-inspect info "$image"
gmem-inspect info "$image" >"$tmp/info"
check "its kind" grep -q 'kind *cloud-hypervisor' "$tmp/info"
check "its version" grep -q 'version *54' "$tmp/info"
check "its memory" grep -q '^ *slot0 ' "$tmp/info"
t "its configuration" 0 gmem-inspect extract --state config -o "$tmp/config" "$image"
check "is what it sent" grep -q '^{.*"memory_manager_data".*}$' "$tmp/config"
t "its state" 0 gmem-inspect extract --state state -o "$tmp/state" "$image"
check "is what it sent too" grep -q '^{.*"snapshots".*}$' "$tmp/state"

begin --memory size=0 --memory-zone id=a,size=8M,shared=on \
    --memory-zone id=b,size=8M,shared=on --hole 4M --seed 9
snap "zones, one in two pieces of one file" 0 --leave quit
wait "$vmm"
check "are three regions" test "$(gmem-inspect info "$image" | grep -c '^ *slot[0-2] ')" -eq 3
check "and come back" restores
begin --memory size=0 --memory-zone id=a,size=8M,shared=on --memory-zone id=b,size=8M --hole 4M
snap "a zone that is not shared" 0 --leave quit
wait "$vmm"
check "comes back, as the other" restores
begin --memory size=64M --slots 16 --guest-writes 200000 --rounds 8
snap "a busy VM, in rounds" 0
check "runs on" state_is Running
stop
check "and comes back" restores

huge='size=16M,hugepages=on,hugepage_size=2M'
huge_pages() { [ "$(awk '$1 == "HugePages_Free:" { print $2 }' /proc/meminfo)" -ge "$1" ]; }
if huge_pages 16; then
    for version in v53.0 main; do
        begin --version-as $version --memory $huge --seed 10
        snap "$version: huge pages" 0 --leave quit
        wait "$vmm"
        gmem-inspect info "$image" >"$tmp/info"
        check "$version: their size is known" grep -q 'hugetlb *16 MiB *2 MiB' "$tmp/info"
        check "$version: they come back" restores --version-as $version
    done
else
    skip "huge pages" "no 16 huge pages of 2 MiB are free"
fi

# ---- what goes wrong ----
# lie SAYS OPTION: the VM is saved, which fails, and runs on.
lie() {
    says=$1
    shift
    begin --memory "$memory" --slots 3 "$@"
    snap "$*" "${status:-3}"
    check "$*: says so" said "$says"
    check "$*: nothing is left" nothing_left
    check "$*: the VM runs" state_is Running
    stop
}
# dies SAYS OPTION: so does the VMM.
dies() {
    says=$1
    shift
    begin --memory "$memory" --slots 3 "$@"
    snap "$*" 1
    check "$*: says so" said "$says"
    check "$*: and what has become of it" said 'the VM has ended'
    check "$*: nothing is left" nothing_left
    wait "$vmm" 2>/dev/null
}
memory=size=8M,shared=on
dies 'while we waited for the Start' --die-at=start
for step in memory-fd last-memory-fd config; do
    dies 'while we waited for the memory and configuration' --die-at=$step
done
dies 'while we waited for the state' --die-at=state
dies 'while we waited for the Complete' --die-at=complete
dies 'while we waited for the Config' --die-in=config
dies 'while we waited for the State' --die-in=state
memory=size=8M
dies 'while we waited for the memory and state' --die-at=memory
dies "while we waited for the guest's memory" --die-in=memory
status=1
for step in memory state complete; do
    lie 'closed the connection' --close-at=$step
    lie 'the VMM abandoned it' --abandon-at=$step
done
memory=size=8M,shared=on
for step in start memory-fd config state complete; do
    lie 'closed the connection' --close-at=$step
    lie 'the VMM abandoned it' --abandon-at=$step
done
for version in v52.0 v53.0; do
    lie 'the VMM abandoned it' --abandon-at=complete --version-as $version
done
for step in state complete; do
    lie "VMM says 500: .*abandoned before $step" --abandon-at=$step --version-as v52.0
    lie "VMM says 500: .*closed before $step" --close-at=$step --version-as v52.0
done
lie 'vm.send-migration: the VMM says 500' --api-500=vm.send-migration
lie 'vm.send-migration: .*without an answer' --api-close=vm.send-migration
status=5
lie 'version 9 of the migration protocol' --start-version=9
lie 'slot [0-9]*: .*pipe' --fd-pipe
status=3
lie 'Start out of order' --start-twice
lie 'unknown command (77)' --command=77
lie 'sent 0 descriptors with the memory' --fd-none
lie 'sent 2 descriptors with the memory' --fd-two
lie 'MemoryFd with 8 bytes' --fd-length=8
lie 'its memory has [0-9]* bytes, not' --fd-small
lie 'slot [0-9]* did not come' --fd-late
lie 'slot [0-9]* came twice' --slot-twice
lie 'slot [0-9]* did not come' --slot-missing
lie 'which is no memory of the VM' --slot-unknown
lie 'slots 1 and 2 overlap' --ranges-overlap
lie 'Config: line' --config-no-json
lie '0 pieces of guest memory' --config-no-memory
lie 'Config with 104857600 bytes' --config-huge
lie 'State: it is no JSON' --state-no-json
lie 'State out of order' --state-first
lie 'Complete out of order' --state-missing
lie 'Config with 4611686018427387904 bytes' --huge-payload=config
lie 'State with 4611686018427387904 bytes' --huge-payload=state
memory=size=8M
lie 'Memory with 4611686018427387904 bytes' --huge-payload=memory
lie 'where there is none' --memory-outside
lie 'no whole pages' --memory-past-end
lie 'Memory with [0-9]* bytes' --memory-unaligned

for memory in size=8M size=8M,shared=on; do
    status=5
    lie 'Cloud Hypervisor 51.2.0 is too old: it has to be 52.0 or later' \
        --api-version=51.2.0 --api-build=v51.2
    lie '"?" is no version' '--api-version=?' --api-build=devel
    lie 'Cloud Hypervisor v51.0 is too old' --api-version= --api-build=v51.0
    status=3
done
begin --memory size=8M --api-version=51.2.0 --api-build=v51.2
ask PUT /api/v1/vm.pause >/dev/null
snap "a paused one of 51.2" 5
check "stays paused" state_is Paused
stop

memory=size=8M,shared=on
begin --memory "$memory" --complete-twice
snap "Complete again is not waited for" 0
check "the VM runs" state_is Running
stop
for what in api-500=vmm.ping api-500=vm.info api-close=vmm.ping api-garbage=vmm.ping \
    api-no-json=vmm.ping api-no-json=vm.info; do
    begin --memory "$memory" "--$what"
    timeout -k 5 "$patience" gmem-snap --cloud-hypervisor "$api" -o "$image" >"$out" 2>"$err"
    check "--$what" test $? -eq 1 -o $? -eq 3
    check "--$what: is named" said "${what#*=}: "
    check "--$what: nothing is left" nothing_left
    stop
done
begin
snap "there is no VM" 1
check "says so" said 'VM is not created'
stop
rm -f "$api"
snap "nobody is there" 1
check "is named" said "$api"

# ---- an image that fails when the VMM has sent all ----
was() { # STATE
    [ "$1" = Running ] || ask PUT /api/v1/vm.pause >/dev/null
}
for version in v52.0 v53.0 main v54.0; do
    for memory in size=8M,shared=on size=8M; do
        for how in "paused Running" "running Paused" "as-before Running"; do
            begin --version-as $version --memory $memory
            was "${how#* }"
            t "$version, $memory: it can't be completed: $how" 1 timeout -k 5 "$patience" \
                vmm-drive save cloud-hypervisor "$api" 20000 "${how% *}" commit
            check "$version, $memory, $how: as it was" state_is "${how#* }"
            stop
        done
    done
done

# ---- a socket that somebody else has made ----
begin --memory size=8M,shared=on --api-launcher
snap "a launcher made the API's socket" 0
check "it runs" state_is Running
stop
rm "$image"
begin --memory size=8M,shared=on --api-launcher
t "who is taken for the VMM" 1 timeout -k 5 "$patience" \
    vmm-drive save cloud-hypervisor "$api" 1000 as-before none 1
check "is named, and who came" said "does not connect within 1000 ms: process [0-9]* does, and 1 is taken"
stop

# ---- memory that was sent keeps no VM waiting ----
# order LEAVE WORD...: when what was done
order() {
    order_leave=$1
    shift
    begin --version-as $version --memory $memory
    t "$version, $memory, $order_leave" 0 timeout -k 5 "$patience" \
        vmm-drive save cloud-hypervisor "$api" 20000 "$order_leave"
    check "$version, $memory, $order_leave: $*" test "$(sed 's/.*: //' "$out" | xargs)" = "$*"
    stop
}
for version in v52.0 v53.0 main; do
    memory=size=8M
    order as-before runs memory commit
    order running runs memory commit
    order paused memory commit paused
    order quit memory commit ended
    memory=size=8M,shared=on
    order as-before memory runs commit
    order paused memory commit paused
    order quit memory commit ended
done
begin --memory size=8M
t "and if that can't be read" 1 timeout -k 5 "$patience" \
    vmm-drive save cloud-hypervisor "$api" 20000 as-before memory
check "the VM runs" state_is Running
stop

# ---- somebody else has paused it, or is migrating it ----
for version in v52.0 v53.0 main; do
    for memory in size=8M,shared=on size=8M; do
        for how in "others-migrate running ongoing" "others-pause paused Invalid.transition"; do
            # shellcheck disable=SC2086
            set -- $how
            begin --version-as $version --memory $memory "--$1"
            snap "$version, $memory, --$1" 1 --leave "$2"
            check "$version, $memory, --$1: says so" said "$3"
            check "$version, $memory, --$1: it stays paused" state_is Paused
            check "$version, $memory, --$1: nothing is left" nothing_left
            stop
        done
    done
done

# ---- silence ----
# silent SAYS OPTION: a second is waited for each answer.
silent() {
    says=$1
    shift
    begin --memory "$memory" --slots 3 "$@"
    t "$*" 1 timeout -k 5 "$patience" vmm-drive save cloud-hypervisor "$api" 1000
    check "$*: the limit is named" said "$says within 1"
    kill -KILL "$vmm"
    wait "$vmm" 2>/dev/null
}
memory=size=8M,shared=on
silent 'no Start' --silent-at=connect
silent 'no Start' --silent-at=start
silent 'no Start' --short-header
silent 'no memory and configuration' --silent-at=memory-fd
silent 'no memory and configuration' --silent-at=config
silent 'no state' --silent-at=state
silent 'no Complete' --silent-at=complete
silent 'vmm.ping: no answer' --api-silent
silent 'vm.info: no answer' --api-silent=vm.info
silent 'the VMM does not connect' --api-silent=vm.send-migration
memory=size=8M
silent 'no memory and state' --silent-at=memory

# ---- somebody wants out ----
memory=size=8M,shared=on
begin --memory "$memory" --silent-at=state
gmem-snap --cloud-hypervisor "$api" -o "$image" >"$out" 2>"$err" &
snap=$!
sleep 0.5
kill -TERM "$snap"
sleep 0.1
stop
wait "$snap"
check "SIGTERM ends it" test $? -eq 143
check "nothing is left" nothing_left
done_testing

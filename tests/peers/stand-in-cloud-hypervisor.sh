#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The stand-in for Cloud Hypervisor against the raw peers: what the tests of gmem's side of
# its protocol rest on.
. "${abs_top_srcdir:?}/tests/lib/vmm-cli.sh"
# shellcheck disable=SC2154
dir=$tmp/raw
mkdir "$dir" || exit 99
patience=${GMEM_TEST_PATIENCE:-240}

# begin OPTION...: a VMM in the background, its API at $api
begin() {
    api=$tmp/api.sock
    rm -f "$tmp/migration"
    timeout -k 5 "$patience" stand-in-cloud-hypervisor --api-socket "path=$api" "$@" \
        >"$tmp/vmm.out" 2>"$tmp/vmm.err" &
    vmm=$!
}
ask() { timeout "$patience" stand-in-cloud-hypervisor --api-socket "$api" --request "$@"; }
put() { ask PUT "/api/v1/$1" ${2+"$2"}; }
ended() { # STATUS
    wait "$vmm"
    got=$?
    cat "$tmp/vmm.out" "$tmp/vmm.err"
    [ "$got" -eq "$1" ]
}
stop() {
    kill "$vmm"
    wait "$vmm"
} 2>/dev/null
shuts_down() { put vmm.shutdown && ended 0; }
state_is() { ask GET /api/v1/vm.info | grep -q "\"state\":\"$1\""; }
said() { grep -q -- "$1" "$tmp/vmm.err"; }

# send LOCAL [FIELDS]: to raw-ch-sink; its status is $sunk
send() {
    rm -f "$tmp/migration"
    timeout -k 5 "$patience" raw-ch-sink "$tmp/migration" "$dir" >"$tmp/sink" 2>&1 &
    sink=$!
    await test -S "$tmp/migration"
    put vm.send-migration "{\"destination_url\":\"unix:$tmp/migration\",\"local\":$1$2}"
    asked=$?
    [ $asked -eq 0 ] || kill "$sink" 2>/dev/null
    wait "$sink"
    sunk=$?
    cat "$tmp/sink"
    return "$asked"
}
sent() { send "$@" && [ "$sunk" -eq 0 ]; }

# receive MODE OPTION...: from raw-ch-source; its status is $served, the API's $asked
receive() {
    mode=$1
    shift
    put vm.receive-migration \
        "{\"receiver_url\":\"unix:$tmp/migration\",\"memory_mode\":\"$mode\"}" >"$tmp/asked" &
    request=$!
    await test -S "$tmp/migration"
    timeout -k 5 "$patience" raw-ch-source "$@" "$dir/memory" "$dir/config.json" \
        "$dir/state.json" "$tmp/migration"
    served=$?
    wait "$request"
    asked=$?
    cat "$tmp/asked"
    [ "$asked" -eq 0 ]
}

# ---- as a source ----
for version in v52.0 v53.0 main; do
    for local in true false; do
        begin --version-as $version --memory size=32M,shared=on --slots 4 --gap 1M \
            --guest-writes 20000 --seed 7
        check "$version, local $local: sends" sent $local
        check "$version, local $local: ends" ended 0
        check "$version, local $local: it ran" grep -q ' ran$' "$tmp/sink"
        begin --memory size=1M
        put vm.shutdown >"$tmp/check"
        check "$version, local $local: restored" receive Precopy --precopy
        check "$version, local $local: all is right" ended 0
        check "$version, local $local: all was compared" grep -q '8192 pages right' "$tmp/vmm.out"
    done
done

begin --memory size=16M
check "local without shared memory is refused" test "$(send true | head -n 1)" = 500
check "and it runs" state_is Running
check "non-local without shared memory" sent false
check "and it ends" ended 0

begin --memory size=0 --memory-zone id=a,size=8M,shared=on \
    --memory-zone id=b,size=8M,shared=on --hole 4M --seed 9
check "paused" put vm.pause
check "paused twice" test "$(put vm.pause | head -n 1)" = 500
check "a paused VM is sent, and stays" sent true ',"preserve_source":true'
check "it is paused" state_is Paused
check "the sink knows" grep -q '3 slots, 3 descriptors, was paused' "$tmp/sink"
check "shut down" shuts_down
cp -r "$dir" "$tmp/zones"

begin --version-as v53.0 --memory size=16M,shared=on --slots 16 --file-per-slot
check "v53.0 sends" sent true ',"preserve_source":true,"what is this":[1]'
check "v53.0 does not know preserve_source, and ends" ended 0

for step in start memory-fd last-memory-fd config state complete; do
    begin --memory size=8M,shared=on --slots 3 --abandon-at=$step
    send true >"$tmp/check"
    check "abandoned at $step: the sink has failed" test $sunk -eq 1
    check "abandoned at $step: and tells why" await said "abandoned before $step; the VM runs"
    check "abandoned at $step: it runs" state_is Running
    shuts_down >"$tmp/check"
done
for lie in die-at=config die-in=state close-at=start fd-none slot-missing \
    config-no-json config-no-memory state-first command=77 die-in=memory memory-outside; do
    local=true
    case $lie in *memory*) local=false ;; esac
    begin --memory size=8M,shared=on --slots 2 "--$lie"
    send $local >"$tmp/check"
    check "--$lie: the sink has failed" test $sunk -ne 0
    stop
done

# ---- as a destination ----
begin --memory size=64M,shared=on --slots 3 --gap 2M --guest-writes 20000 --seed 11
check "a VM of 64 MiB" sent true
check "has gone" ended 0

on_demand() {
    for version in v53.0 main; do
        for how in "" --inline; do
            begin --version-as $version
            # shellcheck disable=SC2086
            check "$version, postcopy ${how:-memfd}" receive Postcopy $how
            check "$version, postcopy ${how:-memfd}: all is right" ended 0
            check "$version, postcopy ${how:-memfd}: on demand" \
                grep -q ' [1-9][0-9]* faults, [1-9][0-9]* prefaulted' "$tmp/vmm.out"
            check "$version, postcopy ${how:-memfd}: each page once" \
                grep -q '16384 requests' "$tmp/vmm.out"
        done
    done
    begin
    check "CompletePaused" receive Postcopy --paused
    check "it is paused" state_is Paused
    check "resumed" put vm.resume
    check "all is right" ended 0
    begin --state-slow=300 --fault-twice --leave-early
    check "State is slow, pages are asked for twice, and it leaves early" receive Postcopy
    check "all is right all the same" ended 0
}

what_comes_back() {
    begin
    receive Postcopy --rewrite >"$tmp/check"
    check "a page that is put in again after it was written is found" ended 3
    begin --stay
    check "restored, and it stays" receive Postcopy
    check "all was seen" await grep -q 'pages right' "$tmp/vmm.out"
    cp -r "$dir" "$tmp/first"
    check "sent on" sent true
    check "and ended" ended 0
    check "its memory is the same" cmp "$dir/memory" "$tmp/first/memory"
    begin
    check "restored again" receive Postcopy
    check "all is right" ended 0
    sed 's/"hugepages":false/"hugepages":true/g' "$tmp/zones/config.json" >"$tmp/huge.json"
    begin
    cp "$tmp/zones"/* "$dir" && cp "$tmp/huge.json" "$dir/config.json"
    check "pages of 2 MiB" receive Postcopy
    check "all is right" ended 0
    check "there are few of them" grep -q ' 8 requests' "$tmp/vmm.out"
    cp "$tmp/first"/* "$dir"
    sed 's/"prefault":false/"prefault":true/' "$tmp/first/config.json" >"$dir/config.json"
    begin
    receive Postcopy >"$tmp/check"
    check "prefault and postcopy: refused" test $served -eq 1
    shuts_down >"$tmp/check"
    cp "$tmp/first"/* "$dir"
    begin --version-as v52.0
    check "v52.0 does not know postcopy" receive Postcopy --precopy
    check "all is right" ended 0
}

huge_pages() {
    free=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 0)
    if [ "$free" -lt 24 ]; then
        skip "huge pages" "needs 24 free huge pages of 2 MiB"
        return
    fi
    for local in true false; do
        begin --memory size=16M,hugepages=on --slots 2 --guest-writes 20000
        check "huge pages, local $local: sent" sent $local
        check "huge pages, local $local: gone" ended 0
        for how in "" --inline; do
            begin
            # shellcheck disable=SC2086
            check "huge pages, local $local: restored ${how:-memfd}" receive Postcopy $how
            check "huge pages, local $local: all is right" ended 0
            check "huge pages, local $local: 8 of them" grep -q ' 8 requests' "$tmp/vmm.out"
        done
    done
    cp "$tmp/first"/* "$dir"
}

bench() {
    begin --bench
    check "bench" receive Postcopy
    check "bench: all is right" ended 0
    check "bench: tells how fast it was" grep -q '16384 requests in .* requests/s' "$tmp/vmm.out"
}

goes_wrong() {
    cp "$dir/memory" "$tmp/memory"
    printf x | dd of="$dir/memory" bs=1 seek=12345678 conv=notrunc 2>"$tmp/check"
    begin
    receive Postcopy >"$tmp/check"
    check "a wrong byte is found" ended 3
    check "and told" grep -q 'WRONG byte at 0xbc614e ' "$tmp/vmm.out"
    cp "$tmp/memory" "$dir/memory"

    begin --fault-wait=1
    receive Postcopy --precopy >"$tmp/check"
    check "no fault connection in time: the source has failed" test $served -eq 1
    check "no fault connection in time: status 500" grep -q '^500' "$tmp/asked"
    check "and there is no VM" test "$(ask GET /api/v1/vm.info | head -n 1)" = 404
    shuts_down >"$tmp/check"
    begin --version-as v52.0 --error-at=config
    receive Precopy --precopy >"$tmp/check"
    check "v52.0 says 204 when it has refused" grep -q '^204' "$tmp/asked"
    check "and the source has failed" test $served -eq 1
    shuts_down >"$tmp/check"
    begin --fault-close=5000
    receive Postcopy >"$tmp/check"
    check "the fault connection ends early: the VMM ends with the next fault" ended 4
}

lies() {
    for lie in error-at=memory-fd error-at=config error-late-at=state garbage-at=start \
        invalid-at=config die-at=state close-at=complete; do
        begin "--$lie"
        receive Postcopy >"$tmp/check"
        check "--$lie: the source has failed" test $served -ne 0
        stop
    done
    for lie in fault-outside fault-straddle fault-wrap fault-length=0 fault-huge; do
        begin "--$lie" --guest-threads 1
        receive Postcopy >"$tmp/check"
        check "--$lie is sent" await said "${lie%=*}: "
        stop
    done
}

begin
receive Postcopy >"$tmp/check" 2>&1
stop
if said 'Failed to create userfaultfd'; then
    skip "on demand" "no permission for userfaultfd"
else
    on_demand
    what_comes_back
    huge_pages
    bench
    goes_wrong
    lies
fi

# ---- the API ----
begin
check "no VM" test "$(ask GET /api/v1/vm.info | head -n 1)" = 404
check "nothing to resume" test "$(put vm.resume | head -n 1)" = 500
check "no such path" test "$(ask GET /api/v1/vm | head -n 1)" = 404
check "a method it does not have" test "$(ask PUT /api/v1/vm.info | head -n 1)" = 400
check "a body it does not have" test "$(put vm.pause '{}' | head -n 1)" = 400
check "no body" test "$(put vm.receive-migration | head -n 1)" = 400
check "no JSON" test "$(put vm.receive-migration '{' | head -n 1)" = 400
check "a field is missing" test "$(put vm.receive-migration '{"memory_mode":"Postcopy"}' | head -n 1)" = 400
check "no such mode" test "$(put vm.receive-migration '{"receiver_url":"unix:x","memory_mode":"postcopy"}' | head -n 1)" = 400
: >"$tmp/migration"
check "a socket that is there is in its way" \
    test "$(put vm.receive-migration "{\"receiver_url\":\"unix:$tmp/migration\"}" | head -n 1)" = 500
check "shut down" shuts_down
begin --api-500=vmm.ping --api-slow=50 --api-no-json=vm.info
check "--api-500" test "$(ask GET /api/v1/vmm.ping | head -n 1)" = 500
check "--api-no-json" test "$(ask GET /api/v1/vm.info | tail -n 1)" = '{"state": '
check "shut down" shuts_down
begin --api-garbage
ask GET /api/v1/vmm.ping >"$tmp/check" 2>&1
check "--api-garbage" test $? -eq 2
stop
t "--help names every lie" 0 stand-in-cloud-hypervisor --help
# shellcheck disable=SC2154
check "one of them" grep -q -- '--fault-pipeline=N' "$out"
t "an option it does not have" 2 stand-in-cloud-hypervisor --api-socket x --nonsense 1
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# stand-in-firecracker itself, served by raw-uffd-server: nothing of gmem is in here, so
# what holds for both of them is what Firecracker and its handlers agree upon.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

api=$tmp/api sock=$tmp/uffd mem=$tmp/mem state=$tmp/state
vmm='' server=''
stop() { # PID...: children of ours
    for p in "$@"; do
        kill -KILL "$p" 2>/dev/null
        wait "$p" 2>/dev/null
    done
}
stop_all() {
    # shellcheck disable=SC2086
    stop $vmm $server
    tap_clean
}
trap stop_all EXIT

await() { # COMMAND: within 20 s
    for _ in 0 1 2 3 4 5 6 7 8 9; do
        n=0
        while [ $n -lt 200 ]; do
            "$@" >/dev/null 2>&1 && return 0
            n=$((n + 1))
            sleep 0.01
        done
    done
    return 1
}
fc() { timeout -k 1 60 stand-in-firecracker "$@"; }
make() { rm -f "$mem" "$state" && fc --make "$@" "$mem" "$state"; }
start() { # OPTION...: $vmm, with its output in $said
    said=$tmp/said
    rm -f "$api"
    timeout -k 1 60 stand-in-firecracker --api-sock "$api" "$@" >"$said" 2>&1 &
    vmm=$!
}
serve() { # FILE, or --dump
    rm -f "$sock"
    timeout -k 1 60 raw-uffd-server "$1" "$sock" >"$tmp/dump" 2>"$tmp/serve-err" &
    server=$!
    await test -S "$sock"
}
ask() { fc --api-sock "$api" --request "$@"; }
load() { # TYPE PATH [MORE]
    ask PUT /snapshot/load "{\"snapshot_path\":\"$state\",\"mem_backend\":{\"backend_type\":\"$1\",\"backend_path\":\"$2\"}$3}"
}
create() { # MEMORY STATE [MORE]
    ask PUT /snapshot/create "{\"snapshot_path\":\"$2\",\"mem_file_path\":\"$1\"$3}"
}
ends() { # NAME STATUS: of the VMM
    wait "$vmm" 2>/dev/null
    got=$?
    vmm=''
    check "$1" test $got -eq "$2"
    [ $got -eq "$2" ] || sed 's/^/# /' "$said"
}
# From make's files, by raw-uffd-server, and resumed.
restore() { # NAME STATUS OPTION...
    name=$1 status=$2
    shift 2
    serve "$mem"
    start "$@"
    load Uffd "$sock" ',"resume_vm":true' >"$tmp/load" 2>&1
    ends "$name" "$status"
    [ "$status" -ne 0 ] || check "$name: all is right" grep -q '^guest: ok: ' "$said"
    wait "$server"
    server=''
}

fc --bench "$tmp/none" 2>"$tmp/why"
! grep -q 'userfaultfd: ' "$tmp/why" || skip_all "$(cat "$tmp/why")"

t "--help" 0 fc --help
lies=$(sed -n '/^Lies:/,$s/^  \([a-z0-9-]*\) .*/\1/p' "$out")
check "has lies" test "$(echo "$lies" | wc -l)" -gt 60
t "--version" 0 fc --version-as 1.12 --version
check "as Firecracker" grep -qx 'Firecracker v1.12.0' "$out"
for bad in '--version-as 2.0' '--version-as 1.18' '--lie x' '--die x' '--sizes 3' '--sizes 5K' \
    '--regions 17' '--page-size 3' '--threads 0' 'x' ''; do
    # shellcheck disable=SC2086
    t "usage: $bad" 2 fc --api-sock "$api" $bad --boot x
done

# The API before there is a VM.
make --mem-size 4
check "the memory file has all of it" test "$(stat -c %s "$mem")" -eq 4194304
check "zeros are written" test "$(stat -c %b "$mem")" -ge 8192
start --version-as 1.12 --id vm7
t "GET /" 0 ask GET /
check "tells all" grep -qx '200 {"id":"vm7","state":"Not started","vmm_version":"1.12.0","app_name":"Firecracker"}' "$out"
t "GET /version" 0 ask GET /version
check "tells it" grep -qx '200 {"firecracker_version":"1.12.0"}' "$out"
t "GET /machine-config" 0 ask GET /machine-config
check "tells the size" grep -q '"mem_size_mib":32,' "$out"
refused() { # NAME PATTERN REQUEST...
    name=$1 pattern=$2
    shift 2
    t "$name" 1 ask "$@"
    check "$name: 400" grep -q "^400 {\"fault_message\":\"$pattern" "$out"
}
refused "GET of nothing" 'Invalid request method and/or path: GET x' GET /x
refused "PATCH too early" '.*not supported before starting' PATCH /vm '{"state":"Paused"}'
refused "PUT without a body" 'Empty PUT request' PUT /snapshot/load
refused "PUT of no JSON" 'An error occurred when des' PUT /snapshot/load '{"'
refused "a snapshot of nothing" '.*not supported before' PUT /snapshot/create '{"snapshot_path":"a","mem_file_path":"b"}'
refused "a field of later" '.*unknown field .track_dirty_pages' PUT /snapshot/load \
    '{"snapshot_path":"x","mem_file_path":"x","track_dirty_pages":true}'
refused "no backend" '.*missing field: either .mem_backend.' PUT /snapshot/load '{"snapshot_path":"x"}'
refused "two backends" '.*too many fields' PUT /snapshot/load \
    '{"snapshot_path":"x","mem_file_path":"x","mem_backend":{"backend_path":"x","backend_type":"File"}}'
refused "another backend" '.*unknown variant .Memfd' PUT /snapshot/load \
    '{"snapshot_path":"x","mem_backend":{"backend_path":"x","backend_type":"Memfd"}}'
check "it lives" kill -0 "$vmm"
t "the socket is taken" 1 fc --api-sock "$api"
refused "a handler that is not there" 'Load snapshot error: .*vmstate\|Load snapshot error: .*' PUT /snapshot/load \
    "{\"snapshot_path\":\"$tmp/none\",\"mem_backend\":{\"backend_path\":\"x\",\"backend_type\":\"Uffd\"}}"
ends "a failed load ends it" 1
make --mem-size 4 --version-as 1.12
start --version-as 1.12
refused "no handler" 'Load snapshot error: .*Failed to connect to UDS Unix stream: No such file or directory (os error 2)"' \
    PUT /snapshot/load "{\"snapshot_path\":\"$state\",\"mem_backend\":{\"backend_path\":\"$tmp/none\",\"backend_type\":\"Uffd\"}}"
ends "ends it too" 1
start --version-as 1.13
load Uffd "$tmp/none" >"$tmp/load"
check "a vmstate of another version" grep -q 'Invalid data version' "$tmp/load"
ends "ends it" 1
start --version-as 1.12
ask PUT /machine-config '{"vcpu_count":1,"mem_size_mib":8}' >"$tmp/o"
load File "$mem" >"$tmp/load"
check "no load when something was configured" grep -q 'not allowed after configuring' "$tmp/load"
t "InstanceStart" 0 ask PUT /actions '{"action_type":"InstanceStart"}'
ends "the guest runs and ends" 0
check "of that size" grep -q '^guest: ok: 2048 pages' "$said"

# Versions, regions, orders.
for version in 1.1 1.6 1.7 1.10 1.11 1.12 1.14 1.16 1.17 main; do
    make --version-as $version --balloon-device --regions 2
    restore "$version" 0 --version-as $version
    restore "$version: memory is given back" 0 --version-as $version --storm 3 --balloon while
done
make --version-as 1.11
restore "1.11 without a balloon" 2 --version-as 1.11 --storm 3
for n in 1 3 16; do
    make --regions $n --mem-size 9 --hole
    restore "$n regions apart" 0 --hole
    restore "$n regions in a row" 0 --adjacent --threads 5
done
make --sizes 12K,4K,3M,64K --density 32 --seed 77
check "the sum of regions" test "$(stat -c %s "$mem")" -eq $((3 * 1048576 + 80 * 1024))
for order in random up down; do
    restore "regions of any size, $order" 0 --order $order --threads 1
done
restore "some pages" 0 --touch 100
check "so many" grep -q ': 100 pages' "$said"
make
restore "reading" 0 --no-write
check "wrote nothing" grep -q ' 0 written' "$said"
restore "a balloon first" 0 --balloon before
check "half is gone" grep -q ' 4096 given back' "$said"
restore "a storm" 0 --storm 20 --threads 4

# What is wrong is found, wherever it is.
for at in 1234 100000 33554431; do
    printf x >"$tmp/x"
    cp "$mem" "$tmp/sound"
    dd if="$tmp/x" of="$mem" bs=1 seek=$at conv=notrunc 2>/dev/null
    restore "a wrong byte at $at" 3
    check "is told" grep -q "^guest: WRONG: region 0, page 0x$(printf %x $((at / 4096))) " "$said"
    mv "$tmp/sound" "$mem"
done
serve "$mem"
start --lie overlap-offset
load Uffd "$sock" ',"resume_vm":true' >"$tmp/load" 2>&1
ends "a page of elsewhere" 3

# Paused until it is told.
serve "$mem"
start
t "a load without resume_vm" 0 load Uffd "$sock"
t "is paused" 0 ask GET /
check "as it says" grep -q '"state":"Paused"' "$out"
sleep 0.2
check "the guest does nothing" test ! -s "$said"
t "Resumed" 0 ask PATCH /vm '{"state":"Resumed"}'
ends "and now it ran" 0

# Snapshots of a running VM.
rm -f "$mem" "$state"
start --boot --busy --mem-size 8 --regions 3 --track-dirty
t "no snapshot while it runs" 1 create "$mem" "$state"
check "is told" grep -q 'save/restore unavailable while running' "$out"
check "nothing is written" test ! -e "$mem" -a ! -e "$state"
t "Paused" 0 ask PATCH /vm '{"state":"Paused"}'
t "Paused again" 0 ask PATCH /vm '{"state":"Paused"}'
t "Full" 0 create "$mem" "$state"
sleep 0.1
t "Full again" 0 create "$tmp/again" "$tmp/again-state"
check "nothing moves in between" cmp "$mem" "$tmp/again"
cp "$mem" "$tmp/base"
t "Resumed" 0 ask PATCH /vm '{"state":"Resumed"}'
sleep 0.1
ask PATCH /vm '{"state":"Paused"}' >"$tmp/o"
t "Diff" 0 create "$tmp/diff" "$tmp/state2" ',"snapshot_type":"Diff"'
check "is as long" test "$(stat -c %s "$tmp/diff")" -eq 8388608
check "has holes" test "$(stat -c %b "$tmp/diff")" -lt 16384
t "FIFOs are refused" 1 sh -c "mkfifo $tmp/fifo && exec timeout 5 stand-in-firecracker --api-sock $api --request PUT /snapshot/create '{\"snapshot_path\":\"$tmp/s3\",\"mem_file_path\":\"$tmp/fifo\"}' 3<>$tmp/fifo"
check "as a file that cannot be cut" grep -q 'truncate on the memory backing file: Invalid argument (os error 22)' "$out"
stop "$vmm"
vmm=''
restore "what was saved, by a handler" 0
start
load File "$mem" ',"resume_vm":true' >"$tmp/load"
ends "what was saved, from the file" 0
start --storm 3
load File "$mem" ',"resume_vm":true' >"$tmp/load"
ends "from the file, and given back" 0
state=$tmp/state2
restore "an old memory file with a new state" 3
# A Diff goes over its base.
start --boot --stay --mem-size 8 --regions 3 --track-dirty
stop "$vmm"
serve "$mem"
start --busy
load Uffd "$sock" ',"resume_vm":true,"track_dirty_pages":true' >"$tmp/load" 2>&1
stop "$vmm" "$server"
vmm='' server=''
state=$tmp/state
serve "$mem"
start --busy
load Uffd "$sock" ',"resume_vm":true,"track_dirty_pages":true' >"$tmp/load" 2>&1
ask PATCH /vm '{"state":"Paused"}' >"$tmp/o"
cp "$mem" "$tmp/merged"
t "Diff of a restored VM, over its base" 0 create "$tmp/merged" "$tmp/state4" ',"snapshot_type":"Diff"'
t "Full of it" 0 create "$tmp/full" "$tmp/state5"
check "both are the same" cmp "$tmp/merged" "$tmp/full"
stop "$vmm" "$server"
vmm='' server=''
mem=$tmp/merged state=$tmp/state4
restore "what was merged" 0
mem=$tmp/mem state=$tmp/state

# Death, and troubles.
make --mem-size 4
for step in before-connect connected half sent checks; do
    serve "$mem"
    start --die $step
    load Uffd "$sock" ',"resume_vm":true' >"$tmp/load" 2>&1
    ends "dies: $step" 137
    stop "$server"
done
trouble() { # MODE PATTERN STATUS: what a client sees
    start --api "$1:/version"
    t "--api $1" "$3" timeout "${4:-10}" stand-in-firecracker --api-sock "$api" --request GET /version
    cat "$out" "$err" >"$tmp/both"
    check "--api $1: answer" grep -q "$2" "$tmp/both"
    [ "$1" = die ] || t "--api $1: GET / is fine" 0 ask GET /
    stop "$vmm"
    vmm=''
}
trouble slow '^200' 0
trouble refuse '^400 .*--api refuse' 1
trouble garbage 'no answer' 4
trouble half 'no answer' 4
trouble close 'no answer' 4
trouble die 'no answer' 4
trouble much '^200 xxxx' 0
for mode in silent done-silent; do
    start --api $mode:/version
    t "--api $mode" 124 timeout 1 stand-in-firecracker --api-sock "$api" --request GET /version
    check "--api $mode: no answer" test ! -s "$out"
    t "--api $mode: GET / is fine" 0 ask GET /
    stop "$vmm"
    vmm=''
done
for mode in refuse:400 no-space:400 nothing:204 short:204 bad-crc:204 short-state:204 slow:204 die:; do
    start --boot --stay --mem-size 2 --create ${mode%:*}
    rm -f "$tmp/m" "$tmp/s"
    ask PATCH /vm '{"state":"Paused"}' >"$tmp/o"
    create "$tmp/m" "$tmp/s" >"$tmp/o" 2>&1
    [ "$mode" = die: ] || check "--create ${mode%:*}" grep -q "^${mode#*:} " "$tmp/o"
    case $mode in
    short:*) check "half of the memory" test "$(stat -c %s "$tmp/m")" -eq 1048576 ;;
    nothing:*) check "no file" test ! -e "$tmp/m" ;;
    no-space:*) check "is told" grep -q 'No space left on device (os error 28)' "$tmp/o" ;;
    die:) ends "--create die" 137 ;;
    esac
    # shellcheck disable=SC2086
    stop $vmm
    vmm=''
done
state=$tmp/s
for mode in bad-crc short-state; do
    fc --make --mem-size 2 --create $mode "$tmp/m" "$tmp/s"
    start
    load File "$tmp/m" >"$tmp/load"
    ends "a state from --create $mode is refused" 1
    check "by its checksum" grep -q CRC64 "$tmp/load"
done
state=$tmp/state

# All lies, as they arrive; kinds of lies are looked at, each must be sent.
arrives() { # LIE PATTERN
    serve --dump
    start --lie-ms 100 --lie "$1"
    load Uffd "$sock" >"$tmp/load" 2>&1
    wait "$server"
    server=''
    ends "lie: $1" 137
    check "lie: $1: arrives" grep -qa -- "$2" "$tmp/dump"
}
good='\[{"base_host_virt_addr":[0-9]*,"size":4194304,"offset":0,"page_size":4096,"page_size_kib":4096}\]'
one='bytes, descriptors ( anon_inode:\[userfaultfd\] ), 1: '
serve --dump
start
load Uffd "$sock" >"$tmp/load" 2>&1
wait "$server"
server=''
ends "the truth" 137
check "the truth: one message, one descriptor" grep -qx "[0-9]* $one$good" "$tmp/dump"
check "the truth: nothing else, and no end" lines 2 "$tmp/dump"
# The fields, EVENT_REMOVE (0x8) and what becomes of the socket, by version.
as_version() { # VERSION FEATURES FIELDS END [OPTION]
    # shellcheck disable=SC2086
    make --mem-size 4 --version-as "$1" $5
    serve --dump
    start --version-as "$1"
    load Uffd "$sock" >"$tmp/load" 2>&1
    wait "$server"
    server=''
    ends "$1 $5: its message" 137
    check "$1 $5: fields" grep -q ": \[{\"base_host_virt_addr\":[0-9]*,\"size\":4194304,\"offset\":0$3}\]\$" "$tmp/dump"
    check "$1 $5: features" grep -qx "features $2 flags 04000" "$tmp/dump"
    check "$1 $5: end" test "$(grep -cx end "$tmp/dump")" -eq "$4"
}
kib=',"page_size_kib":4096'
as_version 1.6 0 '' 1
as_version 1.6 0x8 '' 1 --balloon-device
as_version 1.7 0 "$kib" 1
as_version 1.11 0x8 "$kib" 1 --balloon-device
as_version 1.12 0x8 ",\"page_size\":4096$kib" 0
make --mem-size 4
for lie in $lies; do
    want=$one
    case $lie in
    no-fd) want='bytes, descriptors ( ), 0: \[' ;;
    extra-fds) want='( anon_inode:\[userfaultfd\] /dev/null.* ), 4: ' ;;
    many-fds) want='( anon_inode:\[userfaultfd\] .*), 250: ' ;;
    fd-last) want='( /dev/null anon_inode:\[userfaultfd\] ), 2: ' ;;
    fd-null) want='bytes, descriptors ( /dev/null )' ;;
    fd-memfd) want='bytes, descriptors ( /memfd:lie' ;;
    fd-eventfd) want='bytes, descriptors ( anon_inode:\[eventfd' ;;
    fd-pipe) want='bytes, descriptors ( pipe:' ;;
    fd-socket) want='bytes, descriptors ( socket:' ;;
    split) want=': \[{"base$' ;;
    split-fd-last) want='), 1: .*page_size_kib' ;;
    close) want='^end$' ;;
    late | chatter | hang-up | unregistered | registered-none | second*) want="$one$good" ;;
    base-2e53) want='"base_host_virt_addr":9007199254740993,' ;;
    page-2e63) want='"page_size":9223372036854775808,' ;;
    two-arrays) want="$good$good" ;;
    garbage) want='garbage' ;;
    empty-array) want="$one\\[\\]\$" ;;
    esac
    case $lie in
    silent | unregistered | registered-none) ;;
    *) arrives "$lie" "$want" ;;
    esac
done
serve --dump
start --lie silent
load Uffd "$sock" >"$tmp/load" 2>&1
wait "$server"
server=''
ends "lie: silent" 137
check "lie: silent: says nothing" test ! -s "$tmp/dump"
for lie in unregistered registered-none; do
    restore "lie: $lie: memory of zeros" 3 --lie $lie
done

# The benchmark's two sides.
head -c 8388608 /dev/urandom >"$tmp/raw"
for order in random up; do
    serve "$tmp/raw"
    t "--bench $order" 0 fc --bench "$sock" --mem-size 8 --touch 1000 --order $order
    check "prints seconds" grep -Eqx '[0-9]+\.[0-9]{6}' "$out"
    wait "$server"
    server=''
done

if fc --make --page-size 2097152 --mem-size 8 --regions 2 "$mem" "$state" 2>"$tmp/why"; then
    restore "huge pages" 0
    restore "huge pages apart" 0 --hole --threads 4
    restore "huge pages, given back" 0 --storm 3
else
    skip "huge pages" "no free huge page: $(cat "$tmp/why")"
fi

if [ "$(id -u)" -eq 0 ]; then
    make --mem-size 4
    mkdir "$tmp/jail"
    chmod 755 "$tmp"
    cp "$state" "$tmp/jail/state"
    chmod 644 "$tmp/jail/state"
    chmod 777 "$tmp/jail"
    sock=$tmp/jail/uffd
    serve "$mem"
    chmod 777 "$sock"
    api=$tmp/jail/api said=$tmp/said
    timeout 60 stand-in-firecracker --api-sock api --jail "$tmp/jail,65534,65534" >"$said" 2>&1 &
    vmm=$!
    state=state
    load Uffd uffd ',"resume_vm":true' >"$tmp/load" 2>&1
    ends "in a jail" 0
    check "in a jail: all is right" grep -q '^guest: ok: ' "$said"
else
    skip "in a jail" "only root can make one"
fi
done_testing

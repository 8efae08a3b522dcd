#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-restore and gmem-snap with Firecracker, played by stand-in-firecracker: all versions,
# all lies, dying and silent VMMs.  The stand-in's guest knows each of its bytes: it says so, or
# ends with status 3.
[ ! -w /dev/shm ] || : "${TMPDIR:=/dev/shm}"
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
requires stand-in-firecracker

mkdir "$tmp/place"
TMPDIR=$tmp/place
export TMPDIR
api=$tmp/api mem=$tmp/mem state=$tmp/state image=$tmp/vm.gmem
vmm='' server='' silent=''
stop_all() {
    for pid in $vmm $server $silent; do kill -KILL "$pid" 2>/dev/null; done
    tap_clean
}
trap stop_all EXIT

fc() { timeout -k 1 60 stand-in-firecracker "$@"; }
ask() { fc --api-sock "$api" --request "$@"; }
tidy() { [ -z "$(ls "$tmp/place")" ]; }
make() { # OPTION...: the files of a snapshot, and the image of them
    rm -f "$mem" "$state"
    fc --make "$@" "$mem" "$state" &&
        gmem-snap -q -f --file "memory=$mem" --state "vmstate=$state" -o "$image"
}
restore() { # GMEM-OPTION... -- OPTION...
    rm -f "$api"
    set -- "$image" "$@"
    timeout -k 1 120 gmem-restore --vmm firecracker "$@"
}
# NAME OPTION...: comes back with all its bytes.
good() {
    name=$1
    shift
    t "$name" 0 restore -- stand-in-firecracker --api-sock "$api" "$@"
    check "$name: all is right" grep -q '^guest: ok: ' "$out"
}
# NAME PATTERN OPTION...: does not come back, and why.
bad() {
    name=$1 pattern=$2
    shift 2
    restore -- stand-in-firecracker --api-sock "$api" "$@" >"$out" 2>"$err" </dev/null
    got=$?
    check "$name" test $got -eq 1 -o $got -eq 3
    check "$name: says why" grep -Eq "$pattern" "$err"
    check "$name: the guest never ran" lacks '^guest:' "$out"
    sed 's/^/# /' "$err"
}

fc --bench "$tmp/none" 2>"$tmp/why"
! grep -q 'userfaultfd: ' "$tmp/why" || skip_all "$(cat "$tmp/why")"

# Versions.
for version in 1.1 1.6 1.7 1.10 1.11 1.12 1.14 1.16 1.17 main; do
    make --version-as $version --balloon-device --regions 2
    good "$version" --version-as $version
    good "$version, memory is given back" --version-as $version --storm 3 --balloon while
done
make --balloon-device
for engine in --eager --no-background '--engine copy' '--threads 1'; do
    # shellcheck disable=SC2086
    t "$engine" 0 restore $engine -- stand-in-firecracker --api-sock "$api" --storm 3
    check "$engine: all is right" grep -q '^guest: ok: ' "$out"
done
for order in up down; do good "pages $order" --order $order --threads 8; done
for n in 1 3 16; do
    make --regions $n --mem-size 9 --hole
    good "$n regions apart" --hole
    good "$n regions in a row" --adjacent --threads 5
done
make --sizes 4K,8M,12K
good "regions of all sizes"

# Several regions of the image are the memory, and the VMM's need not begin where they do.
fc --make --sizes 4M,12K,8M "$tmp/m" "$tmp/s"
split -b 3M -d "$tmp/m" "$tmp/part"
set --
for part in "$tmp"/part*; do set -- "$@" --file "$part"; done
gmem-snap -q -f "$@" --state "vmstate=$tmp/s" -o "$image"
good "an image of pieces"

# A VMM that never answers is given up on after a minute, which passes meanwhile.
make --regions 3
cp "$image" "$tmp/silent.gmem"
mkdir "$tmp/silent-place"
TMPDIR=$tmp/silent-place timeout -k 1 120 gmem-restore --vmm firecracker "$tmp/silent.gmem" -- \
    stand-in-firecracker --api-sock "$tmp/silent-api" --api silent:load \
    >"$tmp/silent-out" 2>"$tmp/silent-err" </dev/null &
silent=$!

# Lies that do no harm …
for lie in unknown-fields bare-fields old-field many-regions garbage two-arrays over-1k \
    over-64k extra-fds many-fds split split-fd-last split-slow split-fds late second \
    second-late chatter hang-up; do
    good "$lie" --lie $lie
done
# … and others, by what is said of them.
not_pages='these are not pages of'
too_big='no JSON: .*too big integer'
while read -r lie pattern; do
    bad "$lie" "$pattern" --lie "$lie"
done <<LIES
size-small memory has 33550336 bytes, that of .* 33554432: it is not the one
size-big overlap|memory has 33558528 bytes
size-0 0 bytes at 0x.*$not_pages
size-odd $not_pages
size-wraps $too_big
overlap two pieces of memory overlap
overlap-offset begins at offset
twice begins at offset 0,
base-odd $not_pages
base-2e63 $too_big
base-2e53 $not_pages
base-wraps $too_big
base-2e64 $too_big
base-negative base_host_virt_addr is no number of bytes
base-float base_host_virt_addr is no number of bytes
base-string base_host_virt_addr is no number of bytes
base-null base_host_virt_addr is no number of bytes
offset-odd $not_pages
offset-beyond begins at offset 33554432,
offset-wraps $too_big
page-0 pages of 0 bytes
page-3 pages of 3 bytes
page-2e63 $too_big
page-other $not_pages
page-differs $not_pages
empty-array 0 pieces of memory
empty-object it has no base_host_virt_addr
not-json it is no JSON array
no-array it is no JSON array
unfinished no message of the VMM about its memory within 10 s
utf8 it is no JSON
nul it is no JSON
deep nested too deep
no-fd no userfaultfd came with it
fd-last is no userfaultfd
fd-null is no userfaultfd
fd-memfd is no userfaultfd
fd-eventfd is no userfaultfd
fd-pipe is no userfaultfd
fd-socket is no userfaultfd
endless longer than 262144 bytes
close closed the connection and sent nothing
half-close it ends after .* bytes, before its array closes
unregistered not all of the VMM's memory is registered
LIES

# Dying, and an API that does not do what it should.
for step in before-connect connected half sent checks; do
    t "dies: $step" 137 restore -- stand-in-firecracker --api-sock "$api" --die $step
done
t "dies in the request" 137 restore -- stand-in-firecracker --api-sock "$api" --api die:load
good "a slow one" --api slow:load
while read -r mode pattern; do
    bad "API: $mode" "$pattern" --api "$mode"
done <<MODES
close:load load the snapshot: .*closed the connection without an answer
refuse:load the VMM says 400: .*[?]\[31m
garbage:load no answer that makes sense
much:load more than 1048576 bytes
half:load no answer that makes sense
MODES
t "API: refuse:vm" 1 restore -- stand-in-firecracker --api-sock "$api" --api refuse:vm
check "says why" grep -q '^gmem-restore: resume the VM: the VMM says 400' "$err"

# The command line.
t "a VMM without API" 2 restore -- stand-in-firecracker --no-api
t "a jailer, and where?" 2 restore -- jailer --id x
t "a state that is not there" 2 restore --state x -- stand-in-firecracker --api-sock "$api"
t "{mem}" 2 restore -- stand-in-firecracker --api-sock "$api" '{mem}'
t "--api-sock=PATH" 0 restore -- stand-in-firecracker "--api-sock=$api"
t "--api PATH" 0 restore --api "$api" -- sh -c "exec stand-in-firecracker --api-sock $api"
gmem-snap -q -f --file "memory=$mem" -o "$tmp/stateless"
t "an image without a state" 2 timeout 20 gmem-restore --vmm firecracker "$tmp/stateless" -- \
    stand-in-firecracker --api-sock "$api"

await() { # COMMAND: within 20 s
    n=0
    while [ $n -lt 400 ]; do
        "$@" >/dev/null 2>&1 && return 0
        n=$((n + 1))
        sleep 0.05
    done
    return 1
}
start() { # OPTION...: $vmm, a VMM of nobody's
    rm -f "$api"
    stand-in-firecracker --api-sock "$api" "$@" >"$tmp/said" 2>&1 </dev/null &
    vmm=$!
    await ask GET /
}
end() {
    kill -KILL "$vmm" 2>/dev/null
    wait "$vmm" 2>/dev/null
    vmm=''
}
ended() { # of itself; $got
    wait "$vmm" 2>/dev/null
    got=$?
    vmm=''
}

start
t "the API of another" 1 timeout 60 gmem-restore --vmm firecracker --api "$api" "$image" -- \
    sleep 100
check "says so" grep -q 'which is not the VMM that was started' "$err"
check "it lives" kill -0 "$vmm"
end
check "nothing is left behind" tidy

# ---- saving ----

running() { ask GET / | grep -q '"state":"Running"'; }
paused() { ask GET / | grep -q '"state":"Paused"'; }
snap() { timeout -k 1 120 gmem-snap --firecracker "$api" -f -o "$image" "$@"; }
# What was saved is what the guest knows.
back() { # NAME OPTION...
    name=$1
    shift
    t "$name: comes back" 0 timeout -k 1 120 gmem-restore "$image" -- \
        stand-in-firecracker --api-sock "$tmp/again" "$@"
    check "$name: all is right" grep -q '^guest: ok: ' "$out"
    rm -f "$tmp/again"
}

for version in 1.1 1.7 1.12 1.15 1.17 main; do
    start --version-as $version --boot --busy --mem-size 24 --regions 3
    t "$version is saved" 0 snap
    check "$version: it runs" running
    check "$version: nothing is left behind" tidy
    gmem-inspect info "$image" >"$tmp/info"
    check "$version: the image tells" grep -Eq "^  version  +${version#main}" "$tmp/info"
    end
    back "$version" --version-as $version
done
start --boot --busy
t "--leave paused" 0 snap --leave paused
check "it is" paused
t "a paused one" 0 snap
check "stays paused" paused
back "a paused one"
t "--leave running" 0 snap --leave running
check "runs" running
t "--json" 0 snap --json
check "tells what became of it" grep -q '"vm": "running"' "$out"
t "--leave quit" 0 snap --leave quit
ended
back "one that has ended"
start
t "not started" 1 snap
check "says so" grep -q 'state "Not started", there is nothing to save' "$err"
end
t "nobody there" 1 snap
rm -f "$api"
t "nothing there" 1 snap

# A VMM that can't, or won't.  The VM runs again, and there is no image.
for mode in refuse nothing no-space short; do
    start --boot --busy --create $mode
    rm -f "$image"
    t "create: $mode" 1 snap
    check "create: $mode: it runs" running
    check "create: $mode: no image" test ! -e "$image"
    end
done
start --boot --busy --create slow
t "create: slow" 0 snap
end
start --boot --busy --create die
t "create: die" 1 snap
ended
for mode in close die garbage half much refuse; do
    start --boot --busy --api $mode:create
    t "API: $mode" "$([ $mode = much ] && echo 3 || echo 1)" snap
    [ $mode = die ] || check "API: $mode: it runs" running
    end
done
start --boot --busy --api busy:vm
t "API: busy" 0 snap
check "API: busy: it runs" running
check "API: busy: says that it is tried again" grep -q 'the VMM says 503: trying again' "$err"
end
start --boot --busy --api busy:vm --create refuse
t "API: busy, and create is refused" 1 snap
check "API: busy, and create is refused: it runs" running
end
for path in /vm /machine-config; do
    start --boot --busy --api refuse:$path
    t "API: refuse $path" 1 snap
    end
done
check "nothing is left behind by these" tidy

# Killed while it writes: the guardian waits for it, and resumes, where a path has no "/", too.
writes() { ! tidy; }
cd "$tmp" || exit 1
for sig in KILL TERM; do
    start --boot --busy --create slow
    rm -f "$image"
    gmem-snap --firecracker api -o "$image" >"$out" 2>"$err" &
    snap=$!
    await writes
    sleep 0.5
    kill -$sig $snap
    wait $snap
    check "SIG$sig: it runs" await running
    check "SIG$sig: nothing is left behind" await tidy
    check "SIG$sig: no image" test ! -e "$image"
    end
done

cd / || exit 1

# ---- a page server for others ----

sock=$tmp/uffd
listen() { # OPTION...: $server
    : >"$tmp/log" # of the one before, which must not speak for this one
    gmem-restore -v "$image" --listen "$sock" "$@" >"$tmp/log" 2>&1 </dev/null &
    server=$!
    await test -S "$sock"
}
load() { # API: answered in the background
    fc --api-sock "$1" --request PUT /snapshot/load "{\"snapshot_path\":\"$state\",
        \"mem_backend\":{\"backend_type\":\"Uffd\",\"backend_path\":\"$sock\"},\"resume_vm\":true}" \
        >"$tmp/load" 2>&1 </dev/null &
}
logged() { grep -Eq "$1" "$tmp/log"; }
served() { wait "$server" 2>/dev/null; got=$?; server=''; }

make --regions 2
listen --pid-from-peer
for n in 1 2 3; do
    stand-in-firecracker --api-sock "$tmp/api$n" --storm 3 >"$tmp/said$n" 2>&1 </dev/null &
    eval "vmm$n=\$!"
    api=$tmp/api$n
    await ask GET /
    load "$api"
done
api=$tmp/api
for n in 1 2 3; do
    eval "wait \$vmm$n"
    check "--listen: VMM $n ends well" grep -q '^guest: ok: ' "$tmp/said$n"
done
start --lie no-fd
load "$api"
check "one that sends no descriptor is sent away" await logged 'no userfaultfd came with it$'
check "and lives" kill -0 "$vmm"
end
start --lie size-small
load "$api"
check "one with other memory is stopped" \
    await logged 'not the one that was saved; the VMM was stopped'
ended
# The process that serves it is killed.
start --stay --no-write
load "$api"
check "one is served" await logged "process $vmm: its memory is served"
pkill -KILL -P $server
check "a dead server stops its VMM" \
    await logged 'page server was killed by signal 9; the VMM was stopped'
ended
start --stay
load "$api"
check "one more" await logged "process $vmm: its memory is served"
kill -TERM $server
check "SIGTERM ends the listening" await test ! -e "$sock"
check "not the VMM" kill -0 "$vmm"
check "nor the server" kill -0 $server
end
served
check "the status tells that some were stopped" test $got -eq 1

listen --once
start --stay
load "$api"
check "--once: it is served" await logged "process $vmm: its memory is served"
check "--once: the server lives while the VMM does" kill -0 $server
end
served
check "--once: ends with it" test $got -eq 0
check "the socket is gone" test ! -e "$sock"

exec 7>"$tmp/ready"
listen --once --prefetch all --ready-fd 7 --no-background
exec 7>&-
start --stay
check "--ready-fd: nothing is said before a VMM has come" test ! -s "$tmp/ready"
load "$api"
check "--ready-fd: said when all is there" await grep -qx ready "$tmp/ready"
end
served
check "--ready-fd: ends with the VMM" test $got -eq 0
t "prefetched while it is started" 0 restore --prefetch all -- \
    stand-in-firecracker --api-sock "$api" --storm 3
check "prefetched: all is right" grep -q '^guest: ok: ' "$out"

listen --once --no-background
start --stay
load "$api"
check "without a background" await logged "process $vmm: its memory is served"
kill -TERM $server
check "a first signal" await logged 'serving on until the VMMs end'
kill -TERM $server
ended
check "a second one stops the VMM" test $got -eq 137
served
check "status 1" test $got -eq 1

# Recorded: copies can't be there unmapped, so the neighbours of what is touched wait.
falls() { # N FILE: so many pages in the list, each right before the one above it
    awk -v n="$1" '
    function hex(s, v, i) {
        for (i = 3; i <= length(s); i++)
            v = 16 * v + index("0123456789abcdef", substr(s, i, 1)) - 1
        return v
    }
    NR > 1 && $5 == 1 && hex($4) == last - 4096 { k++ }
    NR > 1 { last = hex($4) }
    END { exit k + 1 != n }' "$2"
}
# The guest has looked at the last page already.
few="--order down --touch 40 --threads 1"
# shellcheck disable=SC2086
t "recording" 0 restore --record "$tmp/t.trace" -- stand-in-firecracker --api-sock "$api" $few
t "the trace" 0 gmem-inspect trace --list "$tmp/t.trace"
check "has what was touched, in its order, and no more" falls 39 "$out"
check "but what the guest begins with" test "$(wc -l <"$out")" -le 52
rm "$tmp/t.trace"
listen --once --record "$tmp/t.trace" --record-until ready
# shellcheck disable=SC2086
start --stay $few
load "$api"
check "--listen --record: it is served" await logged "process $vmm: its memory is served"
sleep 0.3
check "there is no trace yet" test ! -e "$tmp/t.trace"
kill -USR2 "$server"
check "SIGUSR2 ends it" await test -e "$tmp/t.trace"
check "the VMM runs on" kill -0 "$vmm"
end
served
check "and ends well" test $got -eq 0
t "its trace" 0 gmem-inspect trace --list "$tmp/t.trace"
t "prefetched by its trace" 0 restore --prefetch "trace=$tmp/t.trace" -- \
    stand-in-firecracker --api-sock "$api"
check "by its trace: all is right" grep -q '^guest: ok: ' "$out"
t "its trace again" 0 gmem-inspect trace --list "$tmp/t.trace"
check "is right" falls 39 "$out"
if [ -w /dev/full ]; then
    listen --once --record /dev/full
    # shellcheck disable=SC2086
    start $few
    load "$api"
    ended
    check "a trace that can't be written" test $got -eq 0
    served
    check "is told" logged 'record: /dev/full: .*No space'
    check "by the status too" test $got -eq 1
fi

# Without memory for a page server; and without a descriptor for a connection.
if command -v prlimit >"$tmp/o"; then
    listen
    await logged 'waiting for VMMs'
    prlimit --pid $server --as=4096
    start --stay
    load "$api"
    if [ -z "${GMEM_SANITIZERS#no}" ]; then
        check "no memory: the VMM is stopped" await logged 'the VMM was stopped$'
    else
        skip "no memory: the VMM is stopped" "a sanitizer ends the process in words of its own"
    fi
    ended
    # Which of the two a sanitizer ends first is not for us to say.
    if [ -z "${GMEM_SANITIZERS#no}" ]; then
        check "no memory: indeed" test $got -eq 137
    else
        check "no memory: indeed" test $got -ne 0
    fi
    kill -KILL $server
    served
    rm -f "$sock"
    listen
    await logged 'waiting for VMMs'
    prlimit --pid $server --nofile=6:64
    start --stay
    load "$api"
    sleep 1.5
    check "no descriptor: it is told once" lines 2 "$tmp/log"
    prlimit --pid $server --nofile=64:64
    check "and then it goes on" await logged 'its memory is served'
    end
    kill -TERM $server
    served
else
    skip "without memory and descriptors" "needs prlimit"
fi
mkfifo "$tmp/pipe"
gmem-restore -v "$image" --listen "$sock" 2>"$tmp/pipe" >"$tmp/o" </dev/null &
server=$!
head -n 1 "$tmp/pipe" >"$tmp/log"
start --stay
load "$api"
sleep 0.5
check "nobody reads the log: it goes on" kill -0 $server
end
kill -TERM $server
served

: >"$sock"
t "a file in its place" 1 timeout 20 gmem-restore "$image" --listen "$sock"
check "stays" test -f "$sock"
rm -f "$sock"
timeout 1 stand-in-firecracker --api-sock "$sock" >"$tmp/o" 2>&1
check "a socket is left of another" test -S "$sock"
listen --once --socket-mode 0660
check "takes its place" await logged 'waiting for VMMs'
check "has the mode" test "$(stat -c %a "$sock")" = 660
t "one where somebody listens" 1 timeout 20 gmem-restore "$image" --listen "$sock"
check "says so" grep -q 'somebody listens there already' "$err"
kill -INT $server # ignored in the background of a shell, and so by us
sleep 0.2
check "a signal that was ignored does nothing" kill -0 $server
kill -TERM $server
served
check "SIGTERM without a VMM: status 0" test $got -eq 0
t "a path too long" 2 timeout 20 gmem-restore "$image" --listen "$tmp/$(printf '%0100d' 0)"
for options in '--once' '--pid-from-peer' '--socket-mode 600' '--socket-owner 0'; do
    # shellcheck disable=SC2086
    t "$options without --listen" 2 gmem-restore "$image" $options -- true
done
for options in '--once --pid-from-peer' '--qmp x' '--paused' '--stats x' '-- true' \
    '--engine continue' '--engine userfault' '--engine source' '--socket-mode 8' '--socket-mode 01000' '--socket-owner no-such-user' \
    '--socket-owner 0:no-such-group'; do
    # shellcheck disable=SC2086
    t "--listen with $options" 2 gmem-restore "$image" --listen "$sock" $options
done

# ---- jailed: another root directory, another user ----

jail=$tmp/jail
clean_jail() { [ -z "$(find "$jail" -name "gmem*")" ]; }
fresh_jail() {
    rm -rf "$jail"
    mkdir -m 0777 "$jail"
}
start_jailed() {
    stand-in-firecracker --jail "$jail,1234,1234" --api-sock /api "$@" \
        >"$tmp/said" 2>&1 </dev/null &
    vmm=$!
    await ask GET /
}
jailed() {
    chmod 0711 "$tmp"
    api=$jail/api
    fresh_jail
    start_jailed --boot --busy
    t "a jailed VMM is saved" 0 snap
    check "and runs" running
    check "its jail is clean" clean_jail
    end
    fresh_jail
    t "it comes back into a jail" 0 timeout -k 1 120 gmem-restore --api "$api" "$image" -- \
        stand-in-firecracker --jail "$jail,1234,1234" --api-sock /api
    check "all is right" grep -q '^guest: ok: ' "$out"
    check "its jail is clean, too" clean_jail
    fresh_jail
    t "and detached" 0 timeout -k 1 120 gmem-restore --api "$api" "$image" -- \
        stand-in-firecracker --jail "$jail,1234,1234" --api-sock /api --detach
    check "this jail is clean, too" clean_jail
    # The orchestrator's way.
    make
    fresh_jail
    cp "$state" "$tmp/for-jail"
    chmod 644 "$tmp/for-jail"
    state=/state
    cp "$tmp/for-jail" "$jail/state"
    sock=$jail/uffd
    listen --once --socket-owner 1234
    start_jailed
    sock=/uffd
    load "$api"
    ended
    check "--socket-owner" grep -q '^guest: ok: ' "$tmp/said"
    served
    fresh_jail
    sock=$jail/uffd
    cp "$tmp/for-jail" "$jail/state"
    listen --socket-mode 0666
    start_jailed
    sock=/uffd
    load "$api"
    check "another user is sent away" await logged 'user 1234 was sent away'
    end
    kill -TERM $server
    served
}
if [ "$(id -u)" -eq 0 ] && [ -e /dev/userfaultfd ]; then
    jailed
else
    skip "jailed VMMs" "needs root, and /dev/userfaultfd"
fi

wait $silent
got=$?
check "a VMM that does not answer" test $got -eq 1
given_up() {
    # Whichever limit is over first: both begin when it is started.
    grep -E 'PUT /snapshot/load: no answer within 60 s|no hand-off of the VMM.s memory within 60 s' \
        "$tmp/silent-err" ||
        ! cat "$tmp/silent-err"
}
check "says what was waited for" given_up
check "nothing is left behind at the end" tidy
check "nor by that one" rmdir "$tmp/silent-place"
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-inspect host: guest_memfd, as this kernel has it.  Other kernels: test-host.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

t "host" 0 gmem-inspect host
cp "$out" "$tmp/text"
t "host --json" 0 gmem-inspect host --json
cp "$out" "$tmp/json"

# The value of a member of an object: two words of the pretty-printed text.
member() { # OBJECT MEMBER
    sed -n "/^  \"$1\": {/,/^  }/p" "$tmp/json" |
        sed -n "s/^    \"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p"
}
is() { [ "$(member "$1" "$2")" = "$3" ]; }

check "schema" grep -q '"schema": 1,' "$tmp/json"
for word in init_shared unknown_flags no_direct_map_flag write_flag writes; do
    check "guest_memfd has $word" [ -n "$(member guest_memfd $word)" ]
done
check "guest_memfd has userfaultfd" grep -q '^    "userfaultfd": {' "$tmp/json"
check "kvm_userfault has its capability" [ -n "$(member kvm_userfault capability)" ]
check "a reason" [ -n "$(sed -n 's/.*"guest_memfd_why": "\(.*\)",/\1/p' "$tmp/json")" ]
check "the same reason in words" grep -qF \
    "$(sed -n 's/.*"guest_memfd_why": "\(.*\)",/\1/p' "$tmp/json")" "$tmp/text"
engine=$(member engines guest_memfd)
one_of() { # WORD WORD...
    case " $2 " in *" $1 "*) return 0 ;; esac
    return 1
}
check "an engine" one_of "$engine" "continue map-continue userfault eager null"
[ "$engine" = null ] && engine=-
check "the same engine in words" grep -q "^  guest_memfd  *$engine " "$tmp/text"
check "no line is too long" lacks '.\{101\}' "$tmp/text"

if ! is guest_memfd works true; then
    skip "guest_memfd" "KVM has none on this machine"
    check "then there is no engine" is engines guest_memfd null
    done_testing
fi
case $(uname -r) in
6.18.*)
    # Measured: it maps, does not write, does not register.
    check "6.18: flags" is guest_memfd flags 0x3
    check "6.18: mmap" is guest_memfd mmap true
    check "6.18: shared" is guest_memfd init_shared true
    check "6.18: no write" is guest_memfd write false
    check "6.18: no semantics" is guest_memfd writes null
    check "6.18: no further flags" is guest_memfd no_direct_map_flag null
    check "6.18: userfaultfd was tried" sh -c \
        "sed -n '/\"guest_memfd\": {/,/^  }/p' $tmp/json | grep -q 'tried\": true'"
    check "6.18: it does not register" grep -q '^  userfaultfd  *does not register: Invalid' "$tmp/text"
    check "6.18: no KVM userfault" is kvm_userfault works false
    check "6.18: eager" is engines guest_memfd eager
    check "6.18: eager past the mapping, too" is engines guest_memfd_slots eager
    ;;
esac
inspect=$(command -v gmem-inspect)
somebody="setpriv --reuid 65534 --regid 65534 --clear-groups"
# shellcheck disable=SC2086
if [ "$(id -u)" -eq 0 ] && $somebody test -x "$inspect" 2>/dev/null; then
    t "as nobody" 0 $somebody gmem-inspect host
    check "says why there is no engine" \
        grep -q 'KVM cannot be used here\|no userfaultfd, as above' "$out"
else
    skip "as nobody" "only root can become somebody else"
fi
done_testing

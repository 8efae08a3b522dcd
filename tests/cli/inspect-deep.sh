#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --digest and gmem-inspect verify --deep: content that somebody has exchanged for
# other content of equal checksums is found, as far as the root hash is the expected one.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

save() { gmem-snap -q "$@" || exit 99; }
digests() { gmem-inspect info --json "$1" | grep '"sha256"'; }
same_digests() { [ "$(digests "$1")" = "$(digests "$2")" ]; }

# Memory with zeros, text, a page that can be forged (number 37), and a last page that is short.
make-image "$tmp/seed" 4 10 65536 3 && forge-page make "$tmp/a" "$tmp/b" || exit 99
{
    head -c $((37 * 4096)) "$tmp/seed.raw"
    cat "$tmp/a"
    tail -c +$((38 * 4096 + 1)) "$tmp/seed.raw" | head -c -1000
} >"$tmp/raw"
{
    echo a state
    tail -c +1000 "$tmp/seed.raw" | head -c 5000
} >"$tmp/state"
memory="--file ram=$tmp/raw --state device=$tmp/state"

# shellcheck disable=SC2086
save $memory -o "$tmp/plain"
t "not recorded" 7 gmem-inspect verify --deep "$tmp/plain"
check "it is said, with the object and what to do" grep -q \
    'plain: device: no SHA-256 of its content is recorded in this image (gmem-snap --digest' "$err"
t "not recorded: an ordinary verify" 0 gmem-inspect verify "$tmp/plain"
t "not recorded, and another image" 6 gmem-inspect verify --deep \
    --expect-root "$(gmem-inspect root "$tmp/seed")" "$tmp/plain"

# shellcheck disable=SC2086
save $memory --digest --threads 1 -o "$tmp/d"
for n in 2 7; do
    # shellcheck disable=SC2086
    save $memory --digest --threads $n -o "$tmp/d$n"
    check "the same image with $n threads" cmp "$tmp/d" "$tmp/d$n"
done
root=$(gmem-inspect root "$tmp/d")
for n in 1 5; do
    t "recorded and right, $n threads" 0 gmem-inspect verify --deep --threads $n "$tmp/d"
    check "says so" grep -q ': whole, and its content is what was saved: ' "$out"
done
t "recorded and right, with the root" 0 gmem-inspect verify --deep --expect-root "$root" "$tmp/d"
t "--json" 0 gmem-inspect verify --deep --json "$tmp/d"
check "tells it" grep -q '"content": true' "$out"
t "--json without --deep" 0 gmem-inspect verify --json "$tmp/d"
check "tells nothing of it" grep -q '"content": null' "$out"
t "goes with verify" 2 gmem-inspect info --deep "$tmp/d"

# What gmem-image(5) says, by somebody else's SHA-256.
if command -v python3 >/dev/null; then
    python3 - "$tmp/state" "$tmp/raw" >"$tmp/by-hand" <<'EOF'
import hashlib, struct, sys
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    h = hashlib.sha256(b"gmem content 1\0")
    for i in range(0, len(data), 4096):
        page = data[i:i + 4096].ljust(4096, b"\0")
        if any(page):
            h.update(struct.pack("<Q", i // 4096) + hashlib.sha256(page).digest())
    h.update(struct.pack("<Q", len(data)))
    print('      "sha256": "%s"' % h.hexdigest())
EOF
    digests "$tmp/d" | sort >"$tmp/digests"
    check "the digests are what the format says" sh -c "sort '$tmp/by-hand' | cmp - '$tmp/digests'"
else
    skip "the digests are what the format says" "needs python3"
fi

# They depend on the content alone.
make-trace "$tmp/d" "$tmp/t" -r 11 300 || exit 99
again() { # NAME OPTION...
    name=$1
    shift
    t "$name" 0 gmem-snap -q --from "$tmp/d" -o "$tmp/again" -f "$@"
    check "$name: the same digests" same_digests "$tmp/d" "$tmp/again"
    t "$name: right" 0 gmem-inspect verify --deep "$tmp/again"
}
again "written anew"
again "written anew with hot pages" --hot "$tmp/t"
again "written anew with other chunks" --chunk-size 4K --level 3
again "written anew with both" --chunk-size 2M --hot "$tmp/t"
t "digested when it is written anew" 0 gmem-snap -q --from "$tmp/plain" --digest -o "$tmp/later"
check "the same digests" same_digests "$tmp/d" "$tmp/later"
t "and with hot pages and other chunks" 0 gmem-snap -q --from "$tmp/plain" --digest \
    --hot "$tmp/t" --chunk-size 128K -o "$tmp/later" -f
check "the same digests then" same_digests "$tmp/d" "$tmp/later"
t "and with other chunks alone" 0 gmem-snap -q --from "$tmp/plain" --digest \
    --chunk-size 16K -o "$tmp/later" -f
check "still the same" same_digests "$tmp/d" "$tmp/later"
# shellcheck disable=SC2086
t "hot pages at once" 0 gmem-snap -q $memory --digest --hot "$tmp/t" -o "$tmp/later" -f
check "the same digests of these" same_digests "$tmp/d" "$tmp/later"
t "and they are right" 0 gmem-inspect verify --deep "$tmp/later"
t "a pipe" 0 sh -c "gmem-snap -q $memory --digest -o - | cat >'$tmp/pipe'"
check "the same digests in it" same_digests "$tmp/d" "$tmp/pipe"

# Forgery: other bytes, and everything that an ordinary verify looks at as before.
forged() { # NAME IMAGE: of which page 37 has been exchanged
    t "$1: seems whole" 0 gmem-inspect verify "$2"
    t "$1: is not" 3 gmem-inspect verify --deep "$2"
    check "$1: tells where" grep -Eq ': ram: SHA-256 of its content is [0-9a-f]{64}, recorded is' "$err"
    check "$1: one line" lines 1 "$err"
    gmem-inspect cat --raw --region ram "$2" $((37 * 4096))+4096 >"$tmp/page"
    check "$1: is b in place of a" cmp "$tmp/page" "$tmp/b"
}
# shellcheck disable=SC2086
save $memory --digest --chunk-size 4K -o "$tmp/small"
root=$(gmem-inspect root "$tmp/small")
cp "$tmp/small" "$tmp/forged"
check "a page is exchanged" forge-page swap "$tmp/forged" "$tmp/a" "$tmp/b"
check "under the same root hash" [ "$(gmem-inspect root "$tmp/forged")" = "$root" ]
forged "a forged page" "$tmp/forged"
t "a forged page, the expected root" 3 gmem-inspect verify --deep --expect-root "$root" "$tmp/forged"
t "the expected root alone says nothing" 0 gmem-inspect verify --expect-root "$root" "$tmp/forged"
t "it is written anew" 0 gmem-snap -q --from "$tmp/forged" --digest -o "$tmp/washed"
forged "written anew" "$tmp/washed"
make-trace "$tmp/small" "$tmp/t37" 0:100+3 0:37 0:5 || exit 99
save --from "$tmp/small" --hot "$tmp/t37" -o "$tmp/warm"
check "a hot page is exchanged" forge-page swap "$tmp/warm" "$tmp/a" "$tmp/b"
forged "a forged hot page" "$tmp/warm"
# An honest image of other memory is whole in itself: what it is not, the root hash tells.
sed 's/a state/a STATE/' "$tmp/state" >"$tmp/other"
save --file "ram=$tmp/raw" --state "device=$tmp/other" --digest --chunk-size 4K -o "$tmp/liar"
t "another image is right" 0 gmem-inspect verify --deep "$tmp/liar"
t "and not the expected one" 6 gmem-inspect verify --deep --expect-root "$root" "$tmp/liar"
done_testing

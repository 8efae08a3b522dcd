#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What info, root and verify tell about a good image; all of it as JSON too.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
make-image "$tmp/a.gmem" 4 6 32768 1 || exit 99

t "info" 0 gmem-inspect info "$tmp/a.gmem"
check "it names the region" grep -q '^  ram  *memfd  *4 MiB  *4 KiB' "$out"
check "and where the guest has it" grep -q '0x0000000100000000-0x00000001001ff000.*ram+0x201000' "$out"
check "and the state" grep -q '^  device  *test  *38 B' "$out"
check "and the annotation" grep -q '^  purpose  test$' "$out"
check "and the sum" grep -q 'for 4 MiB of RAM' "$out"
sed -n 's/^root hash *//p' "$out" >"$tmp/root"

t "root" 0 gmem-inspect root "$tmp/a.gmem"
check "it is the one of info" cmp "$out" "$tmp/root"
check "and a SHA-256" grep -Eqx '[0-9a-f]{64}' "$out"

t "verify" 0 gmem-inspect verify "$tmp/a.gmem"
check "it says so in one line" grep -Eqx '.*a.gmem: whole: [0-9]+ pages .* [0-9]+ index nodes.*' "$out"
check "and nothing on stderr" test ! -s "$err"
t "verify -q" 0 gmem-inspect verify -q "$tmp/a.gmem"
check "prints nothing" test ! -s "$out"
for n in 1 7; do
    t "verify with $n threads" 0 gmem-inspect verify --threads $n "$tmp/a.gmem"
done
exec 3>"$tmp/progress"
t "--progress-fd" 0 gmem-inspect verify --progress-fd 3 "$tmp/a.gmem"
exec 3>&-
check "ends with all done" last '([0-9]+) \1 verify' "$tmp/progress"

json() { # VERB PYTHON-CONDITION
    t "$1 --json" 0 gmem-inspect "$1" --json "$tmp/a.gmem"
    check "$1: $2" python3 -c 'import json,sys
j = json.load(open(sys.argv[1]))
root = open(sys.argv[2]).read().strip()
assert j["schema"] == 1 and j["root"] == root
assert '"$2" "$out" "$tmp/root"
}
if command -v python3 >/dev/null; then
    json info 'j["memory"]["size"] == 4 << 20'
    json info 'j["memory"]["stored_pages"] + j["memory"]["zero_pages"] == 1024'
    json info 'j["regions"][0]["segments"][1]["gpa"] == "0x100000000"'
    json info 'j["annotations"] == {"purpose": "test"}'
    json verify 'j["whole"] is True'
    json root 'j["image"].endswith("a.gmem")'
else
    skip "JSON" "needs python3"
fi
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-snap --pause-less --pid: a process that knows nothing of it writes while it is saved.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
. "$abs_top_srcdir/tests/lib/vmm-server.sh"
. "$abs_top_srcdir/tests/lib/pause-less.sh"

snap() { gmem-snap --pause-less --pid "$pid" "$@"; }
descriptors() { find "/proc/$pid/fd" -mindepth 1 | wc -l; }

serve -C "ram=9:$tmp/a" || skip_all "vmm-server does not run"
save_first "a process"
had=$(descriptors)
save_often 10
t "--json" 0 snap -o "$tmp/i" -f --json
check "it was written to meanwhile" grep -q '"pages_written": [1-9]' "$out"
check "it runs" grep -q '"vm": "running"' "$out"
check "one region of two" snap -q --region ram -o "$tmp/i" -f
check "nothing is protected any more" soon is_free
check "and no descriptor is left in it" test "$(descriptors)" -eq "$had"

for ms in 0 5 10 20 40 80; do
    killed_after $ms gmem-snap --pause-less --pid "$pid" -q -o "$tmp/k" -f
    check "and it runs" soon grep -Eq '^State:[[:space:]]*[RSD]' "/proc/$pid/status"
done
# What one that was killed has begun in the process is ended first.
check "and again" soon snap -q -o "$tmp/i" -f
check "one moment" is_cut "$tmp/i"
check "no descriptor is left in it" test "$(descriptors)" -le $((had + 1))
check "it was never asked for anything" test ! -s "$asked"
end

nothing "killed"
t "one that is gone" 1 snap -o "$dir/i"
t "--pause none" 2 gmem-snap --pid $$ --pause none --pause-less -o "$dir/i"
for how in paused quit; do
    t "--leave $how" 2 gmem-snap --qmp x --leave $how --pause-less -o "$dir/i"
done

done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The lists of system calls of gmem-inspect, compared with what all its tests make it do:
# nothing is missing, and nothing is in it that nobody needs.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
. "$abs_top_srcdir/tests/lib/filter.sh"
filter_requires

lists="$abs_top_srcdir/src/cli/filter-inspect.def $abs_top_srcdir/src/cli/filter-publish.def"
make-image "$tmp/a.gmem" 9 5 32768 6 || exit 99
filter_trace gmem-inspect

# Each of them is a test of its own; here it only has to be run, and end as it should.
for test in cat damage extract info map stats trace; do
    check "inspect-$test.sh under strace" "$abs_top_srcdir/tests/cli/inspect-$test.sh"
done
t "root" 0 gmem-inspect root "$tmp/a.gmem"
t "verify" 0 gmem-inspect verify --threads 12 "$tmp/a.gmem"
sh -c 'gmem-inspect map "$0" >/dev/null' "$tmp/a.gmem"

filter_made >"$tmp/made"
check "the runs were confined" grep -qx exit_group "$tmp/made"
# shellcheck disable=SC2086
filter_listed '[A-Z_]+' $lists >"$tmp/allowed"
check "every call that is made is in the lists" sh -c "! comm -13 '$tmp/allowed' '$tmp/made' | grep ."
# shellcheck disable=SC2086
filter_listed 'CALL|WHEN|IOCTL|REFUSE' $lists >"$tmp/usual"
check "every call in the lists is made" sh -c "! comm -23 '$tmp/usual' '$tmp/made' | grep ."
# shellcheck disable=SC2086
check "what is seldom made says why" \
    sh -c "! grep -hE '^(RARELY|REFUSE)' $lists | grep -vE ', \"[^\"]{4,}\"\)\$'"
done_testing

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Manners: usage, help, a full standard output, the manual page.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
make-image "$tmp/a.gmem" 1 8 32768 5 || exit 99
cd "$tmp" || exit 99
a=a.gmem

t "--help" 0 gmem-inspect --help
check "nothing on stderr" test ! -s "$err"
cp "$out" "$tmp/help"
t "--version" 0 gmem-inspect --version
check "names the program" grep -q '^gmem-inspect [0-9]' "$out"
check "and libzstd" grep -q '^libzstd [0-9]' "$out"

wrong() {
    t "usage: $*" 2 gmem-inspect "$@"
    check "nothing on stdout" test ! -s "$out"
    check "two lines on stderr" lines 2 "$err"
}
wrong
wrong --nothing
wrong look "$a"
wrong info
wrong info "$a" "$a"
wrong host "$a"
wrong cat "$a"
wrong info --raw "$a"
wrong cat --json "$a" 0
wrong extract "$a"
wrong extract -o
wrong extract --json "$a" -o -
wrong extract --region ram --state device "$a" -o out
wrong map --json --list "$a"
wrong map --width 1 "$a"
wrong map --width x "$a"
wrong verify --threads 0 "$a"
wrong verify --progress-fd 99 "$a"

if [ -c /dev/full ]; then
    for args in --help --version "info $a" "root $a" "map $a" "map --list $a" "map --json $a" \
        "map --svg - $a" "cat $a 0+64K" "cat --raw $a 0+64K" "extract -o - $a" "verify $a" \
        "host" "host --json"; do
        t "/dev/full: $args" 1 sh -c "gmem-inspect $args >/dev/full"
        check "is told" grep -q 'No space left' "$err"
    done
fi

t "host" 0 gmem-inspect host
check "names an engine" grep -Eq '^  memfd  +(continue|map-continue|eager) ' "$out"
t "host --json" 0 gmem-inspect host --json
if command -v python3 >/dev/null; then
    check "is JSON" python3 -m json.tool "$out"
fi

# Options in --help, and those in the list of the manual page.
page=$abs_top_srcdir/man/gmem-inspect.1
grep -oE -- '--[a-z-]+' "$tmp/help" | sort -u >"$tmp/in-help"
sed -nE 's/^\.It .*Fl -([a-z-]+).*/--\1/p' "$page" | sort -u >"$tmp/in-page"
check "the page has the options of --help" diff "$tmp/in-help" "$tmp/in-page"
if command -v mandoc >/dev/null; then
    check "the page is clean" mandoc -T lint -W warning "$page"
fi
done_testing

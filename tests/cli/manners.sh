#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What the three tools have in common: --help, --version, wrong usage, a closed
# standard output, and man pages that name the same options as --help.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"

# Options in --help: words that begin with a dash, at the start of a line or behind a comma.
help_options() {
    sed -n 's/^  *\(-.*\)/\1/p' "$1" | tr ',' '\n' |
        sed -n 's/^ *\(--*[A-Za-z0-9][-A-Za-z0-9]*\).*/\1/p' | LC_ALL=C sort -u
}

# Options that the page has an item for.  In mdoc "Fl -json" is --json and "Fl j" is -j.
page_options() {
    awk '
    $1 == ".It" && $2 == "Fl" {
        for (i = 2; i <= NF; i++)
            if ($i == "Fl" && $(i + 1) ~ /^[-A-Za-z0-9]/)
                print "-" $(i + 1)
    }' "$1" | LC_ALL=C sort -u
}

same_options() {
    help_options "$out" >"$tmp/help" && page_options "$1" >"$tmp/page" &&
        [ -s "$tmp/help" ] && diff "$tmp/help" "$tmp/page"
}

to_full() {
    "$@" >/dev/full
}

closed() {
    "$@" >&-
}

for tool in gmem-snap gmem-restore gmem-inspect; do
    if ! command -v "$tool" >/dev/null; then
        skip "$tool" "it is not built"
        continue
    fi
    t "$tool --help" 0 "$tool" --help
    check "$tool --help says nothing on stderr" [ ! -s "$err" ]
    check "$tool --help ends in where there is more" last ".*see $tool\(1\)\.?" "$out"
    check "$tool: --help and the page have the same options" \
        same_options "$abs_top_srcdir/man/$tool.1"
    t "$tool --version" 0 "$tool" --version
    check "$tool --version begins with its name" grep -q "^$tool [0-9]" "$out"
    check "$tool --version names the libraries" grep -q 'libzstd [0-9]' "$out"
    t "$tool with an unknown option" 2 "$tool" --no-such-option
    check "$tool: two lines on stderr" lines 2 "$err"
    check "$tool: nothing on stdout" [ ! -s "$out" ]
    t "$tool without arguments" 2 "$tool"
    check "$tool: two lines on stderr then" lines 2 "$err"
    t "$tool --help to a full disk" 1 to_full "$tool" --help
    check "$tool says so" grep -q 'No space left' "$err"
    t "$tool --version to a full disk" 1 to_full "$tool" --version
    t "$tool --help without stdout" 0 closed "$tool" --help
done
done_testing

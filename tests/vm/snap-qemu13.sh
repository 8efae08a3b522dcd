#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# snap-qemu.sh with the QEMU of Debian 13 (10.x).
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
qemu13=$("$abs_top_srcdir/tests/guest/build-qemu13" 2>"$tmp/build") ||
    skip_all "no QEMU of Debian 13: $(tail -n 1 "$tmp/build")"
PATH=${qemu13%/*}:$PATH
export PATH
tap_clean
exec sh "$abs_top_srcdir/tests/vm/snap-qemu.sh"

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Who may include whom, who alone knows which library, and what the library that
# neither prints nor exits must not ask for.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
requires awk nm

# FOLDER: what it may include, by folder or by header.
rules() {
    cat <<'RULES'
base:
codec: base
format: codec base
image: format codec base
memory: base
serve: image format codec memory base
vmm: serve memory image format codec base gmem-handoff.h gmem-handoff-client.h
vmm: serve memory image format codec base gmem-handoff.h gmem-handoff-client.h
shim: gmem-handoff-client.h
cli: format codec base
gmem-snap: cli vmm serve memory image format codec base
gmem-restore: cli vmm serve memory image format codec base
gmem-inspect: cli vmm serve memory image format codec base
gmem-page-server: cli serve memory image format codec base
RULES
}

# HEADER: the files and folders that alone may know it.
owners() {
    cat <<'OWNERS'
cbor.h: format/cbor.c cli/opt.c
zstd.h: codec
xxhash.h: codec
nettle/sha2.h: codec
linux/userfaultfd.h: serve shim cli/filter.c
linux/kvm.h: memory
jansson.h: vmm cli gmem-snap gmem-restore gmem-inspect
curl/curl.h: vmm/http-curl.h
seccomp.h: cli/filter.c
getopt.h: cli gmem-snap gmem-restore gmem-inspect
OWNERS
}

# VMM: who may know it, beside its own folder.
vmms() {
    cat <<'VMMS'
vmm/cloud-hypervisor: vmm/drivers.c
vmm/firecracker: vmm/drivers.c gmem-restore/listen.c
vmm/qemu: gmem-snap/snap-qemu.c gmem-snap/snap-mapped.c gmem-restore/load-qemu.c
VMMS
}

# Every #include under a source folder, as "folder/file included" ("x.h" or <x.h>).
includes() {
    (cd "$1" && find . -name '*.[ch]' | LC_ALL=C sort | while IFS= read -r file; do
        sed -n "s|^[ 	]*#[ 	]*include[ 	]*\([<\"][^>\"]*\).*|${file#./} \1|p" "$file"
    done)
}

# What breaks the rules, a line each.
violations() {
    rules >"$tmp/rules"
    { owners && vmms; } >"$tmp/owners"
    includes "$1" >"$tmp/includes"
    awk '
    FILENAME == ARGV[1] {
        folder = $1
        sub(/:$/, "", folder)
        known[folder] = 1
        for (i = 2; i <= NF; i++)
            may[folder, $i] = 1
        next
    }
    FILENAME == ARGV[2] {
        header = $1
        sub(/:$/, "", header)
        owned[header] = 1
        for (i = 2; i <= NF; i++)
            owner[header, $i] = 1
        next
    }
    {
        folder = $1
        sub(/\/.*/, "", folder)
        if (!(folder in known)) {
            print $1 ": no rule for this folder"
            next
        }
        header = substr($2, 2)
        if ((header in owned) && !((header, folder) in owner) && !((header, $1) in owner))
            print $1 ": includes <" header ">"
        vmm = header
        if (sub(/\/[^\/]*$/, "", vmm) && (vmm in owned) && index($1, vmm "/") != 1 &&
            !((vmm, $1) in owner))
            print $1 ": includes \"" header "\", of a VMM"
        if (substr($2, 1, 1) == "<")
            next
        target = header
        sub(/\/.*/, "", target)
        if (target != folder && !((folder, target) in may))
            print $1 ": includes \"" header "\""
    }' "$tmp/rules" "$tmp/owners" "$tmp/includes"
}

# Every .c begins with config.h; the shim has none, since it is not of this build's options.
config_first() {
    (cd "$1" && find . -name '*.c' ! -path './shim/*' | while IFS= read -r file; do
        first=$(grep -m 1 '^[ 	]*#' "$file")
        [ "$first" = '#include <config.h>' ] || echo "$file: begins with $first"
    done)
}

# Undefined symbols that print or exit.  log.c writes, and formats in memory; _exit ends a
# child that could not start its program.
talkers() {
    nm -u "$1" | awk '$1 == "U" { print $2 }' | sort -u |
        grep -Ex '(exit|_Exit|quick_exit|abort|v?[fd]?printf|__v?[fd]?printf_chk|f?puts|f?putc|putchar|fwrite|perror|v?errx?|v?warnx?|error|psignal|v?syslog|std(out|err))'
}

quiet() {
    "$@" >"$tmp/found"
    cat "$tmp/found"
    [ ! -s "$tmp/found" ]
}

src=$abs_top_srcdir/src
check "the include rules are kept" quiet violations "$src"
check "config.h is first in every .c" quiet config_first "$src"
check "libgmem.a neither prints nor exits" quiet talkers "${abs_top_builddir:?}/libgmem.a"

# What this would catch: one violation of each kind, planted in a copy.
planted() { # NAME FILE LINE PATTERN
    rm -rf "$tmp/src"
    mkdir -p "$tmp/src/$(dirname "$2")"
    printf '#include <config.h>\n%s\n' "$3" >"$tmp/src/$2"
    violations "$tmp/src" >"$tmp/found"
    check "catches $1" grep -q -- "$4" "$tmp/found"
}

planted "base that knows image" base/err.c '#include "image/image.h"' 'base/err.c: includes "image'
planted "codec that knows format" codec/x.h '#include "format/node.h"' 'codec/x.h: includes "format'
planted "format that knows image" format/x.c '#include "image/out.h"' 'includes "image/out.h"'
planted "image that knows memory" image/x.c '#include "memory/kind.h"' 'includes "memory/kind.h"'
planted "memory that knows serve" memory/x.c '#include "serve/uffd.h"' 'includes "serve'
planted "serve that knows a VMM" serve/x.c '#include "vmm/qemu/qmp.h"' 'includes "vmm/qemu/qmp.h"'
planted "vmm that knows cli" vmm/x.c '#include "cli/opt.h"' 'includes "cli/opt.h"'
planted "one tool that knows another" gmem-snap/x.c '#include "gmem-inspect/map.h"' 'gmem-inspect'
planted "cbor.h elsewhere in format" format/header.c '#include <cbor.h>' 'includes <cbor.h>'
planted "zstd.h in image" image/pack.c '# include <zstd.h>' 'includes <zstd.h>'
planted "xxhash.h in format" format/x.c '#include <xxhash.h>' 'includes <xxhash.h>'
planted "userfaultfd in vmm" vmm/x.c '#include <linux/userfaultfd.h>' 'linux/userfaultfd.h'
planted "kvm.h in vmm" vmm/x.c '#include <linux/kvm.h>' 'includes <linux/kvm.h>'
planted "jansson in serve" serve/x.c '#include <jansson.h>' 'includes <jansson.h>'
planted "curl in a driver" vmm/x.c '#include <curl/curl.h>' 'includes <curl/curl.h>'
planted "a VMM in another" vmm/qemu/x.c '#include "vmm/firecracker/api.h"' 'of a VMM'
planted "a VMM in a command" gmem-snap/x.c '#include "vmm/qemu/qmp.h"' 'of a VMM'
planted "the hand-off in a tool" gmem-snap/x.c '#include "gmem-handoff.h"' 'includes "gmem-handoff.h"'
planted "a folder without a rule" new/x.c '#include "base/err.h"' 'no rule for this folder'
printf '#include <stdio.h>\n#include <config.h>\n' >"$tmp/src/new/y.c"
config_first "$tmp/src" >"$tmp/found"
check "catches a .c without config.h first" grep -q 'new/y.c' "$tmp/found"
if command -v cc >/dev/null; then
    printf '#include <stdio.h>\n#include <stdlib.h>\nvoid f(void);\nvoid f(void) { puts("x"); exit(1); }\n' \
        >"$tmp/talk.c"
    cc -c -o "$tmp/talk.o" "$tmp/talk.c" && talkers "$tmp/talk.o" >"$tmp/found"
    check "catches puts and exit in an object" lines 2 "$tmp/found"
else
    skip "catches puts and exit in an object" "no cc"
fi
done_testing

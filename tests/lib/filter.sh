# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
# For tests that compare a list of system calls, src/cli/filter-*.def, with what a program
# does.  Source it after cli.sh:
#
#   filter_requires            skips the script where programs are not filtered, or not traced
#   filter_trace PROGRAM       from now on PROGRAM is run under strace; the rest of PATH stays
#   filter_trace_page_server   the same for that of gmem-restore
#   filter_made                the calls that it made when it was confined, a line each
#   filter_listed WORDS FILE…  what is allowed by those words of the lists, told the same way
#
# A call is told by its name; an ioctl as ioctl:REQUEST, and fcntl likewise.

filter_traces=${tmp:?}/filter-traces

filter_requires() {
    [ -z "${GMEM_SANITIZERS#no}" ] || skip_all "a build with a sanitizer is not confined"
    grep -q '^#define HAVE_SECCOMP' "${abs_top_builddir:?}/config.h" ||
        skip_all "built without libseccomp"
    requires strace
    strace -o "$tmp/probe" true 2>/dev/null || skip_all "may not use strace: no ptrace(2)"
    grep -q '^Seccomp_filters' /proc/self/status || skip_all "this kernel has no seccomp filters"
}

filter_trace() {
    filter_real=$(command -v "$1") || exit 99
    mkdir -p "$tmp/filter-bin" "$filter_traces" || exit 99
    cat >"$tmp/filter-bin/$1" <<END
#!/bin/sh
exec strace -f -qq -e signal=none -o '$filter_traces'/\$\$ '$filter_real' "\$@"
END
    chmod +x "$tmp/filter-bin/$1"
    PATH=$tmp/filter-bin:$PATH
}

# By -D it stays the child that gmem-restore has started.
filter_trace_page_server() {
    filter_real=${GMEM_PAGE_SERVER:-$abs_top_builddir/gmem-page-server}
    mkdir -p "$filter_traces" || exit 99
    cat >"$tmp/traced-page-server" <<END
#!/bin/sh
exec strace -D -f -qq -e signal=none -o '$filter_traces'/\$\$ '$filter_real' "\$@"
END
    chmod +x "$tmp/traced-page-server"
    GMEM_PAGE_SERVER=$tmp/traced-page-server
    export GMEM_PAGE_SERVER
}

# What comes after the one seccomp(2) that has loaded a filter.  An old strace has numbers only.
filter_made() {
    find "$filter_traces" -type f -exec awk '
        FNR == 1 { confined = 0 }
        confined && match($0, /^[0-9]+ +[a-z_0-9]+\(/) {
            call = substr($0, 1, RLENGTH - 1)
            sub(/^[0-9]+ +/, "", call)
            if (call == "ioctl" || call == "fcntl") {
                split($0, parts, /, */)
                call = call ":" parts[2]
                sub(/[^A-Za-z0-9_:].*/, "", call)
            }
            print call
        }
        /seccomp\(SECCOMP_SET_MODE_FILTER, .* = 0$/ { confined = 1 }' {} + | sed 's/^syscall_0x1c3$/cachestat/' | sort -u
}

filter_listed() {
    filter_words=$1
    shift
    sed -nE "s/^($filter_words)\(([A-Za-z0-9_]+).*/\1 \2/p" "$@" |
        sed -E 's/^[A-Z_]*IOCTL /ioctl:/; s/^FCNTL /fcntl:/; s/^[A-Z_]* //' | sort -u
}

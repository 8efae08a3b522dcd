#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The examples of gmem-inspect(1) that sign a root hash, taken from the page and run, as far
# as the tools are there; and what they are for: other images and hashes do not pass.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
page=$abs_top_srcdir/man/gmem-inspect.1

# The commands of an example: those that sign, to the empty line, and those that check.
commands() { # TOOL sign|verify
    awk -v tool="$1" -v part="$2" '
    $1 == ".\\\"" && $2 == "example:" { here = $3 == tool; now = "sign"; next }
    /^\.Ed/ { here = 0 }
    here && /^$/ { now = "verify"; next }
    here && now == part && !/^\.Bd/ { sub(/^\$ /, ""); gsub(/\\e/, "\\"); print }' "$page"
}
make-image "$tmp/first.gmem" 1 8 32768 4 && make-image "$tmp/other.gmem" 1 8 32768 5 || exit 99

# GnuPG wants a key and a home of its own, and a path to it that is short.
gpg_key() {
    GNUPGHOME=$tmp/gnupg
    export GNUPGHOME
    mkdir -m 700 "$GNUPGHOME" && gpg --batch --quiet --passphrase '' --quick-generate-key \
        builder@localhost ed25519 sign never 2>"$err"
}

for tool in openssl ssh-keygen gpg signify minisign; do
    if [ -z "$(commands $tool sign)" ] || [ -z "$(commands $tool verify)" ]; then
        check "$tool: there is an example" false
        continue
    fi
    if ! command -v $tool >/dev/null; then
        skip "$tool" "there is no $tool to sign with"
        continue
    fi
    mkdir "$tmp/$tool" && cd "$tmp/$tool" || exit 99
    gmem-snap -q --from "$tmp/first.gmem" --digest -o vm.gmem &&
        gmem-snap -q --from "$tmp/other.gmem" --digest -o other.gmem || exit 99
    if [ $tool = gpg ] && ! gpg_key; then
        skip "$tool" "makes no key to sign with: $(head -n 1 "$err")"
        continue
    fi
    t "$tool: a root hash" 0 sh -c 'gmem-inspect root vm.gmem > vm.root'
    t "$tool: is signed" 0 sh -ec "$(commands $tool sign)"
    t "$tool: passes" 0 sh -ec "$(commands $tool verify)"
    # shellcheck disable=SC2016
    proof=$(sed -n 's/^\$ \(gmem-inspect verify --deep --expect-root.*\)/\1/p' "$page")
    t "$tool: and so does its image" 0 sh -ec "$proof"
    mv other.gmem vm.gmem
    t "$tool: another image does not" 6 sh -ec "$proof"
    gmem-inspect root vm.gmem >vm.root
    check "$tool: and its own hash does not" sh -c "! sh -ec '$(commands $tool verify)'"
    cd "$tmp" || exit 99
done
if [ -n "$GNUPGHOME" ]; then
    gpgconf --kill gpg-agent 2>/dev/null
fi
done_testing

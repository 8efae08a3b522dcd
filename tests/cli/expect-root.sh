#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# --expect-root: an image is refused by its root hash, before what it says is believed.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
make-image "$tmp/a" 1 8 32768 4 && make-image "$tmp/b" 1 8 32768 5 || exit 99
root=$(gmem-inspect root "$tmp/a")
other=$(gmem-inspect root "$tmp/b")
upper=$(echo "$root" | tr a-f A-F)
make-trace "$tmp/a" "$tmp/t" -r 11 10 || exit 99

refused() { # of the last command: one line, with all that is needed to see why
    check "$1: one line" lines 1 "$err"
    check "$1: tells the file and both hashes" grep -q \
        "a: another image: its root hash is $root, expected is $other\$" "$err"
    check "$1: nothing on stdout" test ! -s "$out"
}

for verb in info verify map root "cat @ 0" "extract @ -o $tmp/out" "info --json" \
    "verify --json" "map --list" "trace $tmp/t --image @"; do
    case $verb in
        *@*) command=$(echo "$verb" | sed "s|@|$tmp/a|") ;;
        *) command="$verb $tmp/a" ;;
    esac
    # shellcheck disable=SC2086
    t "$verb" 0 gmem-inspect --expect-root "$root" $command
    rm -f "$tmp/out"
    # shellcheck disable=SC2086
    t "$verb: in upper case" 0 gmem-inspect --expect-root "$upper" $command
    rm -f "$tmp/out"
    # shellcheck disable=SC2086
    t "$verb: another image" 6 gmem-inspect --expect-root "$other" $command
    refused "$verb"
    check "$verb: no file" test ! -e "$tmp/out"
done

t "gmem-snap --from" 0 gmem-snap --from "$tmp/a" --expect-root "$root" -o "$tmp/copy"
t "gmem-snap: another image" 6 gmem-snap --from "$tmp/a" --expect-root "$other" -o "$tmp/no"
refused gmem-snap
check "gmem-snap: no file" test ! -e "$tmp/no"

t "gmem-restore: another image" 6 gmem-restore "$tmp/a" --expect-root "$other" -- \
    touch "$tmp/started"
refused gmem-restore
check "gmem-restore: no VMM" test ! -e "$tmp/started"
t "gmem-restore: this image, and a VMM without {mem}" 2 gmem-restore "$tmp/a" \
    --expect-root "$root" --vmm any -- touch "$tmp/started"
check "gmem-restore: the image is not what is wrong" lacks "root hash" "$err"
t "gmem-restore --listen: another image" 6 gmem-restore "$tmp/a" --expect-root "$other" \
    --listen "$tmp/sock"
refused "gmem-restore --listen"
check "gmem-restore: no socket" test ! -e "$tmp/sock"

# What is wrong with the file itself is told as always, whatever is expected.
head -c 5000 "$tmp/a" >"$tmp/cut"
t "cut short" 3 gmem-inspect info --expect-root "$root" "$tmp/cut"
# The manifest is believed only if the root covers it: its hash in the trailer alone does not.
t "no image" 3 gmem-inspect info --expect-root "$root" "$tmp/a.raw"

for wrong in "" 12 "${root}0" "${root%?}" "${root%?}g" "0x${root#??}" " ${root#?}" "sha256:$root"; do
    for tool in "gmem-inspect info $tmp/a" "gmem-snap --from $tmp/a -o $tmp/no" \
        "gmem-restore $tmp/a -- true"; do
        # shellcheck disable=SC2086
        t "${tool%% *}: '$wrong' is no hash" 2 ${tool%% *} --expect-root "$wrong" ${tool#* }
    done
done
check "and it is said what is wanted" grep -q '64 hexadecimal digits' "$err"
t "goes with an image" 2 gmem-inspect host --expect-root "$root"
t "goes with --image" 2 gmem-inspect trace "$tmp/t" --expect-root "$root"
t "goes with --from" 2 gmem-snap --file "$tmp/a.raw" --expect-root "$root" -o "$tmp/no"
done_testing

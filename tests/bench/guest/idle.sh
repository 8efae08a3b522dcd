#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# /workload of a guest that has nothing to do: for each request it reads 16 blocks of its
# files.
seq 1000000 4000000 | head -c 25165824 >/run/data

answer() { # SEED
    at=$1
    sum=$(for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
        at=$(((at * 1103515245 + 12345) % 2147483648))
        dd if=/run/data bs=16k count=1 skip=$((at / 8 % 1536)) 2>/dev/null
    done | sha256sum)
    echo "GUEST ANSWER $1 ${sum%% *}"
}

answer 0 >/dev/null
echo "GUEST READY"
while read -r word seed; do
    [ "$word" != work ] || answer "$seed"
done

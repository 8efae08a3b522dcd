#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# /workload: a redis with 100 MiB of values; for each request 1000 of its keys are read.
redis-server --port 0 --unixsocket /run/redis --save '' --appendonly no \
    --loglevel warning --daemonize no </dev/null >/run/log 2>&1 &
ask() { redis-cli -s /run/redis "$@"; }
until [ "$(ask ping 2>/dev/null)" = PONG ]; do
    sleep 0.1
done
[ "$(ask eval "$(cat /fill.lua)" 0)" = 26000 ] || { cat /run/log; echo "GUEST FAILED"; }

answer() { # SEED
    sum=$(awk -v at="$1" 'BEGIN { for (i = 0; i < 1000; i++) {
        at = (at * 16807 + 11) % 2147483647
        print "get key:" at % 26000 } }' </dev/null | ask | sha256sum)
    echo "GUEST ANSWER $1 ${sum%% *}"
}

answer 0 >/dev/null
echo "GUEST READY"
while read -r word seed; do
    [ "$word" != work ] || answer "$seed"
done

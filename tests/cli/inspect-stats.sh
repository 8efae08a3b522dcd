#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gmem-inspect stats and plot: statistics for people, and those that somebody else has made.
. "${abs_top_srcdir:?}/tests/lib/cli.sh"
requires jq python3

# As gmem-restore writes them.
# shellcheck disable=SC2154
good=$tmp/good.json
cat >"$good" <<'END'
{ "schema": 1, "image": "<a> & \u001b[31m.gmem", "root": "00", "engine": "continue",
  "times_ms": { "launched": 1.5, "first_mapping": 2, "first_fault": 3.25, "running": 6,
    "complete": 40, "ended": 99 },
  "faults": { "stored": 3, "hot": 1, "zero": 2, "present": 1, "waited": 1, "outside": 0, "write": 2,
    "vcpu": 0 },
  "pages": { "demand": 5, "around": 20, "prefetched": 10, "background": 65, "given": 100, "zero": 2 },
  "bytes_read": 123456, "bytes_decoded": 409600,
  "crossings": { "count": 50, "per_1000_pages": 500.0 },
  "prefetch": { "listed": 12, "pages": 10, "bytes": 4096, "late": 2, "ms": 1.5, "precision": null,
    "recall": null },
  "latency": { "count": 5, "sum_ns": 100000, "p50_ns": 9000, "p90_ns": 36000, "p99_ns": 36000,
    "max_ns": 36000, "buckets": [[9216, 3], [36864, 2]] },
  "latency_by": {
    "stored": { "count": 2, "p50_ns": 36000, "p90_ns": 36000, "p99_ns": 36000, "max_ns": 36000,
      "buckets": [[36864, 2]] },
    "hot": { "count": 1, "p50_ns": 9000, "p90_ns": 9000, "p99_ns": 9000, "max_ns": 9000,
      "buckets": [[9216, 1]] },
    "zero": { "count": 2, "p50_ns": 9000, "p90_ns": 9000, "p99_ns": 9000, "max_ns": 9000,
      "buckets": [[9216, 2]] },
    "present": { "count": 0, "p50_ns": 0, "p90_ns": 0, "p99_ns": 0, "max_ns": 0, "buckets": [] } },
  "process": { "cpu_user_ms": 1.5, "cpu_system_ms": 2.5, "rss_max": 5242880, "rss_anon": 1 },
  "series": { "ms": [0.1, 3, 3, 40], "demand": [0, 1, 4, 5], "around": [0, 0, 10, 20],
    "prefetched": [0, 10, 10, 10], "background": [1, 1, 1, 65], "zero": [0, 0, 1, 2],
    "faults": [0, 1, 5, 7], "bytes_read": [0, 1, 2, 123456] }, "of later": [1] }
END

t "a page for people" 0 gmem-inspect stats "$good"
# shellcheck disable=SC2154
cp "$out" "$tmp/page"
says() { grep -Eq -- "$1" "$tmp/page" || { echo "lacks: $1"; cat "$tmp/page"; false; }; }
check "the engine" says '^engine +continue$'
check "when the guest ran" says ' 6\.0 ms +the guest ran'
check "classes, and their share" says '^ +background +65 .* 65\.0 %$'
check "their sum" says '^ +all +100 +400 KiB +100'
check "system calls" says '50 system calls, 500 for 1000 pages'
check "latencies by what was met" says '^ +zero +2 +9\.0 +9\.0 +9\.0 +9\.0$'
check "hot and cold" says '^ +hot +1 +9\.0'
check "without the hot ones" says '^ +stored +2 +36\.0'
check "lateness" says '2 came too late \(16\.7 % of the list\)'
check "nobody knows what of the list was touched" lacks precision "$tmp/page"
jq '.prefetch.precision = 0.25 | .prefetch.recall = 1' "$good" >"$tmp/recorded.json"
t "of a restore that was recorded" 0 gmem-inspect stats "$tmp/recorded.json"
check "precision" grep -q ' 25\.0 % of the list was touched (precision)$' "$out"
check "recall" grep -q ' 100\.0 % of what was touched was on the list (recall)$' "$out"
check "a stranger's text moves no cursor" lacks "$(printf '\033')" "$tmp/page"

valid() {
    python3 - "$1" <<'END'
import sys, xml.etree.ElementTree as et
root = et.parse(sys.argv[1]).getroot()
assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
assert not [e for e in root.iter() if e.tag.endswith(('script', 'image', 'foreignObject'))]
text = ''.join(root.itertext())
for word in 'nan', 'inf':
    for e in root.iter():
        assert not any(word in v for v in e.attrib.values()), e.attrib
for e in root.iter():
    for k in 'x', 'x1', 'x2', 'width':
        v = e.attrib.get(k, '0')
        assert v == '100%' or -100 <= float(v) <= 1000, (k, v)
END
}
t "a plot on standard output" 0 gmem-inspect plot "$good"
cp "$out" "$tmp/plot.svg"
check "is XML, refers to nothing, and has no endless numbers" valid "$tmp/plot.svg"
t "a plot in a file" 0 gmem-inspect plot "$good" -o "$tmp/file.svg"
check "is the same" cmp "$tmp/plot.svg" "$tmp/file.svg"
t "is not overwritten" 1 gmem-inspect plot "$good" -o "$tmp/file.svg"
t "but with --force" 0 gmem-inspect plot "$good" -o "$tmp/file.svg" --force
for class in prefetched "asked for" "around these" "in the background"; do
    check "an area: $class" grep -q "<title>$class: [0-9]* pages</title></path>" "$tmp/plot.svg"
done
for mark in 'launched 1.5' 'first_fault 3.2' 'running 6.0' 'complete 40.0' 'p50 9.0 us' 'p99 36.0 us'; do
    check "a mark: $mark" grep -q ">$mark<" "$tmp/plot.svg"
done
check "its end makes it no longer" lacks '>ended' "$tmp/plot.svg"
check "for light and dark" grep -q 'prefers-color-scheme:dark' "$tmp/plot.svg"
check "a stranger's text is text" grep -q '&lt;a&gt; &amp; \\x1b\[31m' "$tmp/plot.svg"
t "two starts" 0 gmem-inspect plot "$good" "$good"
cp "$out" "$tmp/two.svg"
check "are XML" valid "$tmp/two.svg"
check "each is drawn" [ "$(grep -c 'class="title"' "$tmp/two.svg")" -eq 2 ]
t "two pages" 0 gmem-inspect stats "$good" "$good"
check "are two" [ "$(grep -c '^engine' "$out")" -eq 2 ]

# What may be missing, or be nothing.
edit() { jq "$1" "$good" >"$tmp/edited.json" || exit 99; }
while read -r what; do
    edit "$what"
    t "drawn: $what" 0 gmem-inspect plot "$tmp/edited.json"
    cp "$out" "$tmp/edited.svg"
    check "drawn: $what: XML" valid "$tmp/edited.svg"
    t "told: $what" 0 gmem-inspect stats "$tmp/edited.json"
done <<'END'
del(.series, .process, .crossings, .prefetch, .latency_by)
.series |= map_values([])
.series |= map_values([.[0]])
.times_ms = {}
.prefetch = null
.prefetch.ms = null
del(.prefetch.precision, .prefetch.recall)
.pages |= map_values(0)
.pages.demand = 9007199254740992
.times_ms.complete = 1e12
.series.ms = [0, 0, 0, 0]
.latency |= (.count = 0 | .buckets = [])
.series.demand = [0, 0, 0, 9007199254740992]
END

# Hostile ones.
while read -r what; do
    edit "$what"
    t "refused: $what" 3 gmem-inspect plot "$tmp/edited.json"
    check "refused: $what: one line, nothing drawn" [ "$(wc -l <"$err") $(wc -c <"$out")" = "1 0" ]
    t "refused: $what: for people" 3 gmem-inspect stats "$tmp/edited.json"
done <<'END'
.schema = 2
del(.schema)
[.]
.image = 5
del(.engine)
.times_ms = []
.times_ms.running = -1
.times_ms.running = "now"
.times_ms.running = 1e13
.faults.stored = -1
.faults.stored = 0.5
.faults.zero = 9007199254740994
.pages = 7
.prefetch.recall = 1.5
.prefetch.precision = "most"
.pages.demand = "all"
.latency.count = 6
.latency.buckets = [[1, 2, 3]]
.latency.buckets = [[36864, 2], [9216, 3]]
.latency.buckets = [[9216, 5], [9216, 0]]
.latency.buckets = [range(2000) | [., 1]]
.latency.buckets = {}
.latency_by.zero = null
.latency_by.stored.buckets = [[9, 9007199254740992], [10, 9007199254740992]]
.series.ms = [0, 1, 2]
.series.ms = [3, 2, 1, 0]
.series.ms = 5
.series = []
.series.demand = [0, 1, 0, 1]
.series.demand = [0, 1, 2, -3]
del(.series.around)
.series |= map_values([range(5000)])
.process.cpu_user_ms = -1
.crossings.count = 1e300
END
refused() { # NAME: of what is in edited.json
    t "refused: $1" 3 gmem-inspect plot "$tmp/edited.json"
    check "refused: $1: one line" lines 1 "$err"
}
sed 's/"running": 6/"running": NaN/' "$good" >"$tmp/edited.json"
refused "NaN"
sed 's/"running": 6/"running": 1e999/' "$good" >"$tmp/edited.json"
refused "a number without end"
head -c 500 "$good" >"$tmp/edited.json"
refused "a file that was cut off"
sed 's/"schema": 1/"schema": 1, "schema": 1/' "$good" >"$tmp/edited.json"
refused "a key twice"
head -c 5000000 /dev/zero | tr '\0' ' ' >"$tmp/edited.json"
refused "a large file"
head -c 100000 /dev/zero | tr '\0' '[' >"$tmp/edited.json"
refused "depths"
: >"$tmp/edited.json"
refused "an empty file"
t "no such file" 1 gmem-inspect stats "$tmp/none"
t "a folder" 1 gmem-inspect stats "$tmp"
t "no file" 2 gmem-inspect stats
t "no file to draw" 2 gmem-inspect plot
t "stats takes no --output" 2 gmem-inspect stats "$good" -o x
t "nor --json" 2 gmem-inspect stats "$good" --json

done_testing

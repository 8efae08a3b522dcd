# SPDX-License-Identifier: GPL-2.0-or-later
# The table of the suite, of all its samples in an array.  A ratio is the median of the ratios
# of the rounds, in each of which both were measured one soon after the other.

def median: sort | if length == 0 then null else .[(length - 1) / 2 | floor] end;
def show: if . == null then "-" elif . >= 100 then (. | round | tostring)
	else (. * 100 | round / 100 | tostring) end;
def left($n): . + " " * ([$n - length, 0] | max);
def right($n): " " * ([$n - length, 0] | max) + .;

# The samples of one cell, and what is told of them.
def of($w; $s; $p): map(select(.workload == $w and .state == $s and .peer == $p
	and .answer_ms != null));
def faults: .stats | if . == null then null else .faults.stored + .faults.hot + .faults.zero
	+ .faults.waited + .faults.present end;
def stall: .stats | if . == null then null else .latency.sum_ns / 1e6 end;

# ratio($a; $b; f): of f of peer a to that of peer b, round by round
def ratio($w; $s; $a; $b; f): . as $all
	| [$all | of($w; $s; $a)[] | . as $x | ($all | of($w; $s; $b))[] | select(.round == $x.round)
	   | select((f) != null and (f) > 0 and ($x | f) != null) | ($x | f) / f] | median;

def row($w; $s; $p): . as $all | ($all | of($w; $s; $p)) as $mine
	| if $mine == [] then ($all | map(select(.workload == $w and .state == $s and .peer == $p))
		| "  " + ($p | left(14)) + "    " + (.[0].skipped // "-"))
	else "  " + ([($p | left(14)), ([$mine[].answer_ms] | median | show | right(8)),
		($all | ratio($w; $s; $p; "raw-mmap"; .answer_ms) | show | right(7)),
		([$mine[].vm_ms] | median | show | right(8)),
		([$mine[] | faults | values] | median | show | right(7)),
		([$mine[] | stall | values] | median | show | right(8)),
		([$mine[].bytes] | median / 1048576 | show | right(8)),
		(if all($mine[]; .right) then "" else "  WRONG ANSWER" end)] | join(" ")) end;

# target($text; value; $most): one line; a value of null was not measured
def target($text; $value; $op; $limit):
	if $value == null then empty
	else "  " + ($text | left(64)) + ($value | show | right(7)) + "  " + $op + " "
		+ ($limit | tostring)
		+ (if ($op == "<=" and $value <= $limit) or ($op == ">=" and $value >= $limit)
		   then "  ok" else "  MISSED" end) end;

def targets($w; $s):
	target("demand faults until the answer, gmem-hot against gmem-lazy";
		ratio($w; $s; "gmem-hot"; "gmem-lazy"; faults); "<="; 0.03),
	target("  both with background, gmem-hot against gmem";
		ratio($w; $s; "gmem-hot"; "gmem"; faults); "<="; 0.03),
	target("  both without, gmem-hot-lazy against gmem-lazy";
		ratio($w; $s; "gmem-hot-lazy"; "gmem-lazy"; faults); "<="; 0.03),
	target("stall of all faults, gmem-hot against gmem-lazy";
		ratio($w; $s; "gmem-hot"; "gmem-lazy"; stall); "<="; 0.3),
	(if $s == "cached" then
		target("time to the answer, gmem-hot against raw-mmap";
			ratio($w; $s; "gmem-hot"; "raw-mmap"; .answer_ms); "<="; 1.25)
	elif $s == "slow" then
		target("time to the answer, raw-mmap against gmem-hot";
			ratio($w; $s; "gmem-hot"; "raw-mmap"; .answer_ms) | values | 1 / .; ">="; 2.5),
		# What storage costs, without the work that the guest has from page cache, too.
		([of($w; "cached"; "raw-mmap")[].answer_ms] | median) as $base
		| ([of($w; $s; "raw-mmap")[].answer_ms] | median) as $raw
		| ([of($w; $s; "gmem-hot")[].answer_ms] | median) as $hot
		| if $base == null or $raw == null or $hot == null or $hot <= $base then empty else
		  "  " + ("  of it only what exceeds raw-mmap, cached" | left(64))
		  + (($raw - $base) / ($hot - $base) | show | right(7)) end
	else empty end);

. as $all
| "time to the first answer of a restored guest; medians, load \([.[].load | values] | median)",
(map([.workload, .state]) | reduce .[] as $k ([]; if index([$k]) then . else . + [$k] end)
 | .[] as [$w, $s]
 | "",
   ("\($w), \($s)" | left(16)) + " " + (["answer", "against", "runs", "faults", "stalled", "stored"]
	| [., [8, 7, 8, 7, 8, 8]] | transpose | map(.[0] as $t | .[1] as $n | $t | right($n)) | join(" ")),
   (" " * 16) + " " + (["ms", "mmap", "ms", "", "ms", "MiB"]
	| [., [8, 7, 8, 7, 8, 8]] | transpose | map(.[0] as $t | .[1] as $n | $t | right($n)) | join(" ")),
   ($all | map(select(.workload == $w and .state == $s)) | map(.peer)
    | reduce .[] as $p ([]; if index([$p]) then . else . + [$p] end) | .[] as $p
    | $all | row($w; $s; $p)),
   ($all | targets($w; $s)))

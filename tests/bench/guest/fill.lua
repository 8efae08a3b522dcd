-- SPDX-License-Identifier: GPL-2.0-or-later
-- 26000 values of about 4 KiB of JSON: lines out of a pool of 4 MiB, which is made first.
local pool = {}
for i = 1, 48000 do
	pool[i] = string.format('{"id":%d,"name":"user-%07x","score":%.4f,"tags":["%x","%x"]},\n',
		math.random(1, 1000000), math.random(0, 0xfffffff), math.random() * 100,
		math.random(0, 0xffff), math.random(0, 0xffffff))
end
for key = 0, 25999 do
	local at = math.random(1, 48000 - 52)
	redis.call('set', 'key:' .. key, key .. table.concat(pool, '', at, at + 51))
end
return 26000

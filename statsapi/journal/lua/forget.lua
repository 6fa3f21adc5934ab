-- Removes expired keys. KEYS[3]: the keys by expiry. ARGV: settled time. Gives 1 where there may be more.
local due = redis.call('ZRANGE', KEYS[3], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, STEP_RECORDS)
for _, name in ipairs(due) do redis.call('UNLINK', KEYS[1] .. ':key:' .. name) end
if #due > 0 then redis.call('ZREM', KEYS[3], unpack(due)) end
return #due == STEP_RECORDS and 1 or 0

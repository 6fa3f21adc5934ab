-- Removes expired keys. KEYS[3]: the keys by expiry. ARGV: settled time. Gives 1 where there may be more.
local due = redis.call('ZRANGE', KEYS[3], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, STEP_RECORDS)
for _, name in ipairs(due) do
    local key = KEYS[1] .. ':key:' .. name
    local head, later = redis.call('GETRANGE', key, 0, 23), nil
    if #head == 24 then
        local expires, length, crc, check = struct.unpack('<i8I4I4i8', head)
        if length >= 2147483648 and expires + crc == check and expires > tonumber(ARGV[1]) then later = expires end
    end
    if later then -- what stands beside the answer is proven, and the list was changed
        redis.call('ZADD', KEYS[3], string.format('%.0f', later), name)
    else
        redis.call('UNLINK', key)
        redis.call('ZREM', KEYS[3], name)
    end
end
return #due == STEP_RECORDS and 1 or 0

-- Appends a group of records, or finds what is kept under their keys.
--
-- KEYS: the stream, its meta hash, the keys by expiry, then an idempotency key for each record that has one.
-- ARGV: clock or '', token or '', the POSITION:ID that the last record must have or '', LIMITS; then for each record
-- its id and checksum or '', its payload, and KEYED, digest and answer or ''. (As few as possible: each costs the client
-- 0.4 us.)
-- Gives 'late' and the server's time, 'busy', 'moved', or {now, epoch, the history's id, results...}. A result is the
-- position, 0 for nothing recorded, or what `find` gives.
-- All that can fail comes before the first write.
-- needs clock, after, find
local stream, meta = KEYS[1], KEYS[2]
local not_after, settled, touch = struct.unpack('<i8i8B', ARGV[4])
if clock > not_after then return 'late' .. string.format('%.0f', clock) end
local m = redis.call('HMGET', meta, 'position', 'id', 'us', 'epoch', 'lease', 'lease_us', 'schema', 'born')
if m[5] and m[5] ~= ARGV[2] then
    local left = tonumber(m[6]) - clock
    if left > 0 and left <= LEASE_US then return 'busy' end
end
if not (m[1] and m[2]) and redis.call('EXISTS', stream) == 1 then
    return redis.error_reply('DAMAGED its stream is there without its meta hash')
end
local position, last, us, epoch = tonumber(m[1] or 0), m[2] or '', tonumber(m[3] or 0), tonumber(m[4] or 0)
if not (position and us and epoch) then
    return redis.error_reply('DAMAGED a field of its meta hash is not a number')
end
if ARGV[3] ~= '' and ARGV[3] ~= string.format('%.0f:', position) .. last then return 'moved' end
local now = after(ARGV[1] == '' and clock or tonumber(ARGV[1]), us)
local results, count = {now, epoch, m[8] or ''}, 3
local before = position
for at = 5, #ARGV, 3 do
    local front, kept = ARGV[at], ARGV[at + 2]
    local key, ttl, crc, digest, answer, known
    if kept ~= '' then
        local index, size, from
        index, ttl, crc, size, from = struct.unpack('<I4i8I4I4', kept)
        key, digest = KEYS[index], string.sub(kept, from, from + size - 1)
        answer = string.sub(kept, from + size)
        known = find(key, digest, settled)
    end
    count = count + 1
    if known then
        results[count] = known
    else
        if front == '' then
            results[count] = 0
        else
            local id, previous = string.sub(front, 1, 12), string.rep('\0', 8)
            if last ~= '' then previous = string.sub(last, 1, 8) end
            position = position + 1
            local low, high = struct.unpack('<I4I4', previous)
            local check = now + position + low + high + struct.unpack('<I4', front, 13)
            local head = struct.pack('<i8i8c0c0i8', now, position, id, previous, check)
            redis.call('XADD', stream, string.format('%.0f-0', position), head, ARGV[at + 1])
            last = id
            results[count] = position
        end
        if key then
            local expires = now + ttl
            local head = struct.pack('<i8I4I4i8', expires, 2147483648 + #digest, crc, expires + crc)
            redis.call('SET', key, head .. digest .. answer)
            redis.call('ZADD', KEYS[3], string.format('%.0f', expires), string.sub(key, #stream + 6))
        end
    end
end
if position > before then
    redis.call('HSET', meta, 'position', string.format('%.0f', position), 'id', last,
               'us', string.format('%.0f', now))
    if m[7] ~= SCHEMA_VERSION or not m[8] then
        redis.call('HSET', meta, 'schema', SCHEMA_VERSION, 'born', m[8] or last)
        results[3] = m[8] or last
    end
end
if touch == 1 then redis.call('HINCRBY', meta, 'touched', 1) end
if m[5] then redis.call('HDEL', meta, 'lease', 'lease_us') end
return results

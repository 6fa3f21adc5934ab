-- Makes a staged checkpoint the current one.
--
-- KEYS: the stream, its meta hash, the pieces, the new state (staged), the previous state if any.
-- ARGV: the previous checkpoint's id or '', the new one's id, position, record id and epoch of its mark, the key before
-- which pieces go or '-inf', the checksum; then for each changed piece its key, and its staged name or ''.
-- The pieces' own keys are made here, because only the script knows which go. All have the same hash tag.
-- Gives 1; 0 for a lost race; -1 where the mark's record is not in the journal.
-- needs clock, state, recount
local current = redis.call('HGET', meta, 'cp_name')
if (current or '') ~= ARGV[1] then return 0 end
local at, id, us = tonumber(ARGV[3]), ARGV[4], cp_us
if epoch ~= tonumber(ARGV[5]) then return -1 end
if at ~= cp or id ~= (m[6] or '') then
    if at <= cp then return -1 end
    local entry = redis.call('XRANGE', stream, ARGV[3] .. '-0', ARGV[3] .. '-0')[1]
    if not entry or string.sub(entry[2][1], 17, 28) ~= id then return -1 end
    us = struct.unpack('<i8', entry[2][1])
end
local staged = {KEYS[4]}
for n = 9, #ARGV, 2 do
    if ARGV[n] ~= '' then staged[#staged + 1] = stream .. ':piece:' .. ARGV[n] end
end
for _, key in ipairs(staged) do
    if redis.call('EXISTS', key) == 0 then return redis.error_reply('STAGED a part of the checkpoint has gone') end
end
for _, key in ipairs(staged) do redis.call('PERSIST', key) end
local pieces, grown = KEYS[3], 0
local function bytes(name) return tonumber(string.match(name, '^%-?%d+:%x+:(%d+)')) end
local function drop(from, to)
    for _, name in ipairs(redis.call('ZRANGE', pieces, from, to, 'BYSCORE')) do
        redis.call('ZREM', pieces, name)
        redis.call('UNLINK', stream .. ':piece:' .. name)
        grown = grown - bytes(name)
    end
end
if not current then -- what a history that is gone has left
    drop('-inf', '+inf')
    redis.call('HSET', meta, 'piece_bytes', 0)
    grown = 0
end
for n = 8, #ARGV, 2 do
    drop(ARGV[n], ARGV[n])
    if ARGV[n + 1] ~= '' then
        redis.call('ZADD', pieces, ARGV[n], ARGV[n + 1])
        grown = grown + bytes(ARGV[n + 1])
    end
end
drop('-inf', '(' .. ARGV[6])
redis.call('HINCRBY', meta, 'piece_bytes', grown)
local check = string.format('%.0f:%.0f', at + us + tonumber(ARGV[7]), redis.call('ZCARD', pieces))
redis.call('HSET', meta, 'cp', ARGV[3], 'cp_id', id, 'cp_us', string.format('%.0f', us), 'cp_name', ARGV[2],
           'cp_check', ARGV[2] .. check)
if KEYS[5] then redis.call('UNLINK', KEYS[5]) end
return 1

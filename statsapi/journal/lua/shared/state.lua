-- The state of the journal; what is wrong with it ends the script.
local stream, meta = KEYS[1], KEYS[2]
local m = redis.call('HMGET', meta, 'position', 'id', 'us', 'epoch', 'cp', 'cp_id', 'trimmed', 'missing', 'born',
                     'lost_us', 'cp_us')
local length = redis.call('XLEN', stream)
if length > 0 and not (m[1] and m[2]) then
    return redis.error_reply('DAMAGED its stream is there without its meta hash')
end
local position, epoch, cp, cp_us = tonumber(m[1] or 0), tonumber(m[4] or 0), tonumber(m[5] or -1), tonumber(m[11] or 0)
local trimmed, counted, lost_us = tonumber(m[7] or 0), tonumber(m[8] or 0), tonumber(m[10] or 0)
local sound = position and epoch and cp and cp_us and trimmed and counted and lost_us
local sum = sound and position + epoch + cp + cp_us + trimmed + counted + lost_us
if not sum or sum ~= math.floor(sum) or math.abs(sum) > 9007199254740992 then
    return redis.error_reply('DAMAGED a field of its meta hash is not a number')
end
local missing = position - trimmed - length
if missing < 0 then
    return redis.error_reply('DAMAGED its stream holds entries that are not counted: statsapi did not write them')
end

-- Begins a decision.
--
-- KEYS: the stream, its meta hash, the idempotency key if any.
-- ARGV: clock or '', token or '' (with one the lease is taken), settled time, digest.
-- Gives 'busy', {now, answer} for a known key, or {now, false, position, id}.
-- needs clock, after, find
local meta = KEYS[2]
local m = redis.call('HMGET', meta, 'position', 'id', 'us', 'lease', 'lease_us')
local now = after(ARGV[1] == '' and clock or tonumber(ARGV[1]), tonumber(m[3] or 0))
local known = KEYS[3] and find(KEYS[3], ARGV[4], tonumber(ARGV[3]))
if known then return {now, known} end
if m[4] and m[4] ~= ARGV[2] then
    local left = tonumber(m[5]) - clock
    if left > 0 and left <= LEASE_US then return 'busy' end
end
if ARGV[2] ~= '' then
    redis.call('HSET', meta, 'lease', ARGV[2], 'lease_us', string.format('%.0f', clock + LEASE_US))
end
return {now, false, tonumber(m[1] or 0), m[2] or ''}

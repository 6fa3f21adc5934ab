-- Gives the loss that was written down last, the clock, and when the first part of that loss was noticed.
-- needs clock
local found = redis.call('HMGET', KEYS[2], 'lost', 'lost_since', 'lost_us', 'lost_epoch', 'lost_began_us')
return {tonumber(found[1] or 0), tonumber(found[2] or 0), tonumber(found[3] or 0), tonumber(found[4] or 0), clock,
        tonumber(found[5] or found[3] or 0)}

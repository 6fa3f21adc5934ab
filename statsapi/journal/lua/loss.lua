-- Gives the loss that was written down last, and the clock.
-- needs clock
local found = redis.call('HMGET', KEYS[2], 'lost', 'lost_since', 'lost_us', 'lost_epoch')
return {tonumber(found[1] or 0), tonumber(found[2] or 0), tonumber(found[3] or 0), tonumber(found[4] or 0), clock}

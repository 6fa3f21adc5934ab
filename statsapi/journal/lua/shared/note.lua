-- Later than any epoch of a history that is gone, and another one for two copies that were put back more than 2 s apart.
-- A mark has 32 bits of it, which suffice until 2242.
local function later()
    return math.max(epoch + 1, math.floor(clock / 2000000))
end
-- For a history that is gone: another epoch for all marks, and the loss written down. `began` is when its first part
-- was, where it is known of already; `records` are all of it then.
local function note(records, since, began)
    lost_us, epoch = math.max(clock, lost_us + 1), later()
    redis.call('HSET', meta, 'epoch', epoch, 'lost_epoch', epoch, 'lost_us', string.format('%.0f', lost_us),
               'lost', string.format('%.0f', records), 'lost_since', string.format('%.0f', since),
               'lost_began_us', began or string.format('%.0f', lost_us))
end

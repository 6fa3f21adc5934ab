-- For a history that is gone: another epoch for all marks, and the loss written down.
local function later() -- than any epoch of a history that is gone
    return math.max(epoch + 1, math.floor(clock / 16000000))
end
local function note(records, since)
    lost_us, epoch = math.max(clock, lost_us + 1), later()
    redis.call('HSET', meta, 'epoch', epoch, 'lost_epoch', epoch, 'lost_us', string.format('%.0f', lost_us),
               'lost', string.format('%.0f', records), 'lost_since', string.format('%.0f', since))
end

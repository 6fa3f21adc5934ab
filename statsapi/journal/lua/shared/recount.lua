-- Where entries are gone that nobody trimmed: write down how many, so that all views start afresh.
if missing ~= counted then
    -- needs note
    redis.call('HSET', meta, 'missing', string.format('%.0f', missing))
    if missing > counted then
        note(missing - counted, cp_us)
    else
        epoch = later()
        redis.call('HSET', meta, 'epoch', epoch)
    end
end

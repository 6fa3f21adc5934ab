-- Finds out whether the last record that a process knew of is lost.
--
-- ARGV: what the process knew of the history (Known in redis_history.py); an id for a history that has none.
-- Where it is lost: writes down once how many records are, and takes care that their positions are not given again.
-- Gives 1 where records are lost, now or before and written down.
-- needs clock, state, recount, note
local last, id, us = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local same = ARGV[1] == '' or m[9] == ARGV[1] or (not m[9] and position > 0)
local function entry(at)
    local found = redis.call('XRANGE', stream, at, at)[1]
    return found and found[2][1]
end
local function stands()
    if last > position then return false end
    if last <= cp then return true end
    local head = entry(string.format('%.0f-0', last))
    if head then return string.sub(head, 17, 28) == id end
    if last == position then return m[2] == id end
    head = entry(string.format('%.0f-0', last + 1)) -- somebody took it out; the record after it names it
    return not head or string.sub(head, 29, 36) == string.sub(id, 1, 8)
end
if last == 0 or (same and stands()) then return 0 end
local from, since, gone = math.max(tonumber(ARGV[5]), 0), tonumber(ARGV[6]), tonumber(ARGV[7])
epoch = math.max(epoch, tonumber(ARGV[8]))
if same then
    -- What is left of the old history is older than its last record; what was appended since is not.
    from, since, gone = math.max(cp, 0), cp_us, 0
    local upto = string.format('%.0f-0', last)
    for _ = 1, 1000 do
        local found = redis.call('XREVRANGE', stream, upto, '-', 'COUNT', 100)
        for _, each in ipairs(found) do
            local each_us, at = struct.unpack('<i8i8', each[2][1])
            if each_us <= us then
                from, since, found = math.max(from, at), each_us, {}
                break
            end
        end
        if #found < 100 then break end
        upto = '(' .. found[100][1]
    end
end
local noted = redis.call('HMGET', meta, 'lost_born', 'lost_first', 'lost_last', 'lost', 'lost_began_us')
local began
local records = math.max(last - from - gone, 0)
if noted[1] == ARGV[1] and from < tonumber(noted[3]) then -- somebody else was here before
    if last <= tonumber(noted[3]) then return 1 end
    records, began = tonumber(noted[4]) + last - tonumber(noted[3]), noted[5]
end
if position < last then
    missing = missing + last - position
    position = last
end
if since == 0 then since = -1 end -- nothing is left of what was before them
note(records, since, began)
redis.call('HSET', meta, 'lost_born', ARGV[1], 'lost_first', string.format('%.0f', from + 1),
           'lost_last', string.format('%.0f', last), 'position', string.format('%.0f', position),
           'id', m[2] or string.rep('\0', ID_BYTES), 'missing', string.format('%.0f', missing),
           'born', m[9] or ARGV[9], 'schema', SCHEMA_VERSION)
return 1

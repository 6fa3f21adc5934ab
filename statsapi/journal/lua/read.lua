-- Reads records up to a limit in bytes, which XRANGE alone cannot.
--
-- ARGV: position, limit in records, limit in bytes. Gives the state, then head and payload in turn.
-- needs clock, state, recount, told
local from, left, bytes = '(' .. ARGV[1] .. '-0', tonumber(ARGV[2]), tonumber(ARGV[3])
local reply, count = {told}, 1 -- to ask Lua for #reply each time takes 0.1 us a record
while left > 0 and bytes > 0 do
    local part = redis.call('XRANGE', stream, from, '+', 'COUNT', math.min(left, 32))
    if #part == 0 then break end
    for at = 1, #part do
        if bytes <= 0 then break end
        local entry = part[at][2]
        reply[count + 1], reply[count + 2] = entry[1], entry[2]
        count = count + 2
        bytes = bytes - #entry[2]
    end
    left = left - #part
    from = '(' .. part[#part][1]
end
return reply

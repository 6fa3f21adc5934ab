-- What is kept under a key and has not expired: 'r' and it, 'c' and it for another request, 'd' where it is damaged.
local function find(key, digest, settled)
    local kept = redis.call('GET', key)
    if not kept then -- its name stands among those by expiry as well: there, and not here, it was changed
        local listed = redis.call('ZSCORE', KEYS[1] .. ':keys', string.sub(key, #KEYS[1] + 6))
        return listed and tonumber(listed) > settled and 'd' or nil
    end
    local expires, length, from = struct.unpack('<i8I4', kept)
    if length >= 2147483648 then
        local crc, check
        length, crc, check, from = length - 2147483648, struct.unpack('<I4i8', kept, from)
        if expires + crc ~= check then return 'd' end
    end
    if expires <= settled then return nil end
    return (string.sub(kept, from, from + length - 1) == digest and 'r' or 'c') .. kept
end

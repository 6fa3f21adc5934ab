-- The time of an append after a record of the time `last`: see Time in protocol.py.
local function after(clock, last)
    if last > clock and last - clock <= CLOCKS_DIFFER_US then return last end
    return clock
end

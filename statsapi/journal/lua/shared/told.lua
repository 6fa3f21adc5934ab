-- The state as State in redis_heads.py takes it.
local told = {clock, position, m[2] or '', epoch, cp, m[6] or '', cp_us, missing, m[9] or '', lost_us}

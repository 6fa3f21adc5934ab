-- Gives the state, the checkpoint's name and check, and the number of its pieces. KEYS[3]: the pieces.
-- needs clock, state, recount, told
local named = redis.call('HMGET', meta, 'cp_name', 'cp_check')
return {told, named[1], named[2], redis.call('ZCARD', KEYS[3])}

-- Gives the names of a checkpoint's pieces, or nothing where it is not the current one.
--
-- KEYS[3]: the pieces. ARGV: the checkpoint's id, the first key, the key after the last.
if redis.call('HGET', KEYS[2], 'cp_name') ~= ARGV[1] then return false end
return redis.call('ZRANGE', KEYS[3], ARGV[2], '(' .. ARGV[3], 'BYSCORE')

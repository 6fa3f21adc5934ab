-- Stages a part of a checkpoint's state or piece, also where memory is full: compaction is what makes room.
--
-- KEYS[1]: the list of parts. ARGV: the part.
redis.call('RPUSH', KEYS[1], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], STAGED_TTL_MS)

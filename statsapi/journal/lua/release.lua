-- Gives the lease back. ARGV: its token.
if redis.call('HGET', KEYS[2], 'lease') == ARGV[1] then redis.call('HDEL', KEYS[2], 'lease', 'lease_us') end
return 1

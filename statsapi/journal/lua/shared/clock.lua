-- The server's time.
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

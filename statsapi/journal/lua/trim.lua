-- Removes compacted records. Gives 1 where there may be more.
--
-- Entries that somebody else removed before are no longer missing then.
-- needs clock, state, recount
local upto = math.min(cp, trimmed + STEP_RECORDS)
if upto <= trimmed then return 0 end
local removed = redis.call('XTRIM', stream, 'MINID', '=', string.format('%.0f-0', upto + 1))
redis.call('HSET', meta, 'trimmed', string.format('%.0f', upto), 'missing', missing - (upto - trimmed) + removed)
return upto < cp and 1 or 0

-- Gives what is kept under a key. KEYS[3]: the key. ARGV: settled time, digest.
-- needs find
return find(KEYS[3], ARGV[2], tonumber(ARGV[1])) or false

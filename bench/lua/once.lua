-- Adds 1 once per id, and keeps the reply.
local kept = redis.call('GET', KEYS[1] .. ':once:' .. ARGV[1])
if kept then return {0, tonumber(kept)} end
local reply = redis.call('INCR', KEYS[1])
redis.call('SET', KEYS[1] .. ':once:' .. ARGV[1], reply, 'EX', ARGV[2])
return {1, reply}

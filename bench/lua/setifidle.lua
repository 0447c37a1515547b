-- Takes the state if it is idle, and gives a new token.
local held = redis.call('GET', KEYS[1])
if held and held ~= 'idle' then return {'BUSY', held, redis.call('PTTL', KEYS[1])} end
local token = redis.call('INCR', KEYS[1] .. ':token')
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'STARTED', token}

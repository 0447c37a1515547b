-- Charges what was used of a hold, and frees the rest.
local open = redis.call('HGET', KEYS[1], 'hold:' .. ARGV[1])
local token, amount = string.match(open or '', '^(%d+):(%d+)$')
if token ~= ARGV[2] then return {0, 0} end
local held = redis.call('HINCRBY', KEYS[1], 'held', -amount)
local balance = redis.call('HINCRBY', KEYS[1], 'balance', -ARGV[3])
redis.call('HDEL', KEYS[1], 'hold:' .. ARGV[1])
return {1, tonumber(ARGV[3]), balance - held, held}

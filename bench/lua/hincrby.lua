-- Adds to a field, which has to hold a number, and tells the sum.
local held = redis.call('HGET', KEYS[1], ARGV[1]) or '0'
local sum = tonumber(held) + tonumber(ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], sum)
return sum

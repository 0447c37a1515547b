-- Holds an amount of the account's balance, and gives a token.
local open = redis.call('HGET', KEYS[1], 'hold:' .. ARGV[1])
local held = tonumber(redis.call('HGET', KEYS[1], 'held') or 0)
local balance = tonumber(redis.call('HGET', KEYS[1], 'balance') or 0)
if open then return {-1, 0, balance - held, held} end
local amount = tonumber(ARGV[2])
if balance - held < amount then return {0, 0, balance - held, held} end
local token = redis.call('HINCRBY', KEYS[1], 'token', 1)
redis.call('HSET', KEYS[1], 'hold:' .. ARGV[1], token .. ':' .. amount, 'held', held + amount)
return {1, token, balance - held - amount, held + amount}

-- Makes the state idle if the token is the current one.
local token = redis.call('GET', KEYS[1] .. ':token')
if token ~= ARGV[1] then return {0, tonumber(token or 0)} end
redis.call('DEL', KEYS[1])
return {1, tonumber(token)}

-- Takes one from a limit of count per period with a burst above it (generic cell rate algorithm).
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local interval = ARGV[3] * 1000000 / ARGV[2]
local tolerance = interval * (ARGV[1] + 1)
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
local new = math.max(now, tat) + interval
if now < new - tolerance then return {1, 0} end
redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000))
return {0, math.floor((tolerance - (new - now)) / interval)}

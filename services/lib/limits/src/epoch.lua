-- The epoch of this server's memory. KEYS[1]: its record; ARGV: run id of the server, id for a new epoch.
-- A record that is gone or of another run means that counts were lost: a new epoch begins.
local record = redis.call('HMGET', KEYS[1], 'run', 'id', 'since')
if record[1] == ARGV[1] and record[2] and record[3] then
  return { record[2], record[3], 0 }
end
local clock = redis.call('TIME')
local since = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) + 1)
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'id', ARGV[2], 'since', since)
return { ARGV[2], since, 1 }

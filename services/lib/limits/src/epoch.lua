-- The epoch of this server's memory. KEYS[1]: its record.
-- ARGV: run id of the server, id for a new epoch, term and id of the last epoch that the caller has seen (0 and '' =
-- none), and how long another server may still have lent after this one took over, ms.
-- A record that is gone, of another run, or older than what was seen elsewhere means that counts were lost: a new epoch
-- begins, with a higher term than all before. Servers that all believe to be the master are told apart by it.
local seen_term = tonumber(ARGV[3])
local record = redis.call('HMGET', KEYS[1], 'run', 'id', 'since', 'term')
local term = tonumber(record[4] or 1)
if record[1] == ARGV[1] and record[2] and record[3]
  and (term > seen_term or (term == seen_term and record[2] == ARGV[4])) then
  return { record[2], record[3], term, 0 }
end
local is_first = not record[2] and seen_term == 0
if not record[2] then term = 0 end
term = math.max(term, seen_term) + 1
local clock = redis.call('TIME')
local since = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) + 1
if not is_first then since = since + tonumber(ARGV[5]) end
since = string.format('%.0f', since)
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'id', ARGV[2], 'since', since, 'term', string.format('%.0f', term))
return { ARGV[2], since, term, 1 }

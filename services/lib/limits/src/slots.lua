-- The connections of one lane. KEYS[1]: its state. Everything is counted here, by this server's clock, in one step.
--
-- State, msgpack: { seen, holders }
--   seen     the latest time at which this script ran, ms
--   holders  { { name, count, expires, since, waits_until, waits_since, wants }, … }
--            count        connections that it has, or may open; they count until `expires`
--            since        when it came to have any
--            waits_until  it wants more until then; 0 = it does not
--            waits_since  since when it wants more
--            wants        how many more
--
-- What a holder says that it has is a fact and counts, be it more than the limit. What is free goes first to those
-- who wait and have less than their fair part; with fewer connections than holders, to those without one, in turn.

local limit = tonumber(ARGV[1])
local ttl = tonumber(ARGV[2])
local name = ARGV[3]
local have = tonumber(ARGV[4])
local want = tonumber(ARGV[5])
local epoch_since = tonumber(ARGV[6])
local share = tonumber(ARGV[7])
local fresh = ARGV[8] == '1'

-- After this memory was lost, all who are there have said what they have within this time, ms.
local SETTLED = 6000
-- Who wants more asks again well before this, ms.
local PATIENCE = 3000
-- When there are fewer connections than holders, each may keep its own so long while others wait, ms.
local TURN = 5000
-- Holders without a connection that are remembered.
local MOST_WAITING = 256

local clock = redis.call('TIME')
local past = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now = past + 1

local seen, holders = now, {}
local stored = redis.call('GET', KEYS[1])
if stored then
  local state = cmsgpack.unpack(stored)
  seen, holders = state[1], state[2]
end
if seen > now then
  -- The clock was set back: as if no time had passed since the last call.
  local step = seen - now
  for _, holder in ipairs(holders) do
    for field = 3, 6 do holder[field] = math.max(0, holder[field] - step) end
  end
end

-- Who is still there.
local me, others, waiting = { name, 0, 0, 0, 0, 0, 0 }, {}, 0
for _, holder in ipairs(holders) do
  if holder[3] <= past then holder[2] = 0 end
  if holder[5] <= past then holder[5] = 0 end
  if holder[1] == name then
    me = holder
  elseif holder[2] > 0 then
    others[#others + 1] = holder
  elseif holder[5] > 0 and waiting < MOST_WAITING then
    waiting = waiting + 1
    others[#others + 1] = holder
  end
end

local taken = have
for _, holder in ipairs(others) do taken = taken + holder[2] end
local free = math.max(0, limit - taken)
local fair = math.floor(limit / (#others + 1))

-- How many a waiting holder is short of its part.
local function short(holder)
  if holder[5] == 0 then return 0 end
  if fair > 0 then return math.max(0, math.min(fair - holder[2], holder[7])) end
  if holder[2] == 0 then return 1 end
  return 0
end

local waits_since = now
if me[5] > 0 then waits_since = me[6] end
local before_me, short_of_all = 0, 0
for _, holder in ipairs(others) do
  local missing = short(holder)
  short_of_all = short_of_all + missing
  -- With less than one for each, who has one waits behind all who have none.
  if fair > 0 or have > 0 or holder[6] < waits_since then before_me = before_me + missing end
end

-- Until the leases of the memory before have run out, each keeps to its share; who may have had some of those leases,
-- or can't know what others have had, takes no new one before all have spoken.
local known = past >= epoch_since + ttl
local granted = 0
if not known then
  if fresh or past >= epoch_since + math.min(SETTLED, ttl) then
    granted = math.max(0, math.min(want, free, share - have))
  end
elseif want > 0 then
  local by_right = math.min(free, math.max(0, fair - have))
  granted = math.max(0, math.min(want, math.max(by_right, free - before_me)))
end

-- How many connections to give up for those who are short.
local since = me[4]
if me[2] == 0 then since = now end
local excess = 0
if not known then
  excess = math.max(0, have - share)
elseif short_of_all > free then
  if fair > 0 then
    excess = math.min(math.max(0, have - fair), short_of_all - free)
  elseif now - since >= TURN then
    excess = math.min(have, short_of_all - free)
  end
end

-- More than the limit, since each kept to its own share or to older leases for a while: who came last gives up what is too
-- much, so that not all do at once.
local over = taken - limit
if known and over > 0 then
  for _, holder in ipairs(others) do
    if holder[4] > since or (holder[4] == since and holder[1] > name) then over = over - holder[2] end
  end
  excess = math.max(excess, math.min(have, over))
end

local count = have + granted
local waits_until = 0
if want > granted then waits_until = now + PATIENCE end
if have == 0 and granted > 0 then waits_since = now end
if count > 0 or waits_until > 0 then
  others[#others + 1] = { name, count, now + ttl, since, waits_until, waits_since, want - granted }
end

local last = 0
for _, holder in ipairs(others) do last = math.max(last, holder[3], holder[5]) end
if last == 0 then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], cmsgpack.pack({ now, others }), 'PX', string.format('%.0f', last - now + 1000))
end
local knows = 0
if known then knows = 1 end
return { knows, granted, excess, short_of_all }

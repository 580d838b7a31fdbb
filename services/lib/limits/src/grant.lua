-- One window of a lane. KEYS[1]: its state, KEYS[2]: the schedulers that are heard (presence.lua). Everything is counted
-- here, by this server's clock, in one step.
--
-- State, msgpack: { base, uses, holders }, times as distances from `base`, ms
--   base     the time at which this script ran last
--   uses     { before base, count, … } the oldest first: `count` uses, the last of them at that time
--   holders  { name, held, until after base, batch, waits until after base, … }
--            held         uses that it was granted and has not dated: not used, or under way; they count until it is
--                         silent for `hold`, and one window more
--            batch        number of the last dates that it told: what is told again counts once
--            waits until  when it asks again for what it did not get
--
-- A use counts until its date + window.

local limit = tonumber(ARGV[1])
local window = tonumber(ARGV[2])
local hold = tonumber(ARGV[3])
local pace = tonumber(ARGV[4])
local epoch_since = tonumber(ARGV[5])
local name = ARGV[6]
local batch = tonumber(ARGV[7])
local have = tonumber(ARGV[8])
local want = tonumber(ARGV[9])
-- The scheduler that asks, '' for somebody who is none, and after what time of silence one may use its share.
local member = ARGV[10]
local silence = tonumber(ARGV[11])
-- From here on: how long ago, count, …; the oldest first.
local FIRST_DATE = 12

-- Bounds of the state, whatever the callers do.
local MOST_USES = 320
local MOST_HOLDERS = 64
-- Uses that lie closer together than this are one entry, as late as the latest of them.
local grain = math.max(1, math.floor(window / 256))
-- Never much at once, so that no replica starves the others.
local most = math.ceil(limit / 16)
-- Who found nothing asks again when so many are free: calls cost more than a moment without use.
local bundle = math.min(want, math.ceil(limit / 128))

local clock = redis.call('TIME')
-- What happens now is dated by `now`, rounded up, and what counts ends by `past`, rounded down: a millisecond too
-- long is safe, one too short is not.
local past = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now = past + 1

local times, counts, holders = {}, {}, {}
local me = { name = name, batch = 0 }
local stored = redis.call('GET', KEYS[1])
if stored then
  local state = cmsgpack.unpack(stored)
  -- When the clock was set back it is as if no time had passed.
  local base = math.min(state[1], now)
  local old = state[2]
  for at = 1, #old, 2 do
    local time = base - old[at]
    if time + window > past then
      times[#times + 1] = time
      counts[#counts + 1] = old[at + 1]
    end
  end
  old = state[3]
  for at = 1, #old, 5 do
    local holder = { name = old[at], held = old[at + 1], ends = base + old[at + 2], batch = old[at + 3], waits = 0 }
    -- 0 = it waits for nothing, also for who asks within the same millisecond.
    if old[at + 4] > 0 then holder.waits = base + old[at + 4] end
    if holder.name == name then
      me = holder
    elseif holder.ends > past or (holder.held > 0 and holder.ends + window > past) then
      holders[#holders + 1] = holder
    end
  end
end

local function add_use(time, count)
  if count <= 0 or time + window <= past then return end
  local place = #times
  while place > 0 and times[place] > time do place = place - 1 end
  local bucket = math.floor(time / grain)
  if times[place + 1] and math.floor(times[place + 1] / grain) == bucket then
    counts[place + 1] = counts[place + 1] + count
  elseif place > 0 and math.floor(times[place] / grain) == bucket then
    times[place] = time
    counts[place] = counts[place] + count
  else
    table.insert(times, place + 1, time)
    table.insert(counts, place + 1, count)
  end
end

if batch > me.batch then
  for at = FIRST_DATE, #ARGV, 2 do
    add_use(now - tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
  end
  me.batch = batch
end
me.held, me.ends, me.waits = have, now + hold, 0
holders[#holders + 1] = me

local used, held, waiting = 0, 0, 0
for _, count in ipairs(counts) do used = used + count end
for _, holder in ipairs(holders) do
  held = held + holder.held
  if holder.waits > past then waiting = waiting + 1 end
end

-- What those may use by themselves that are not heard, or were not until lately: what they used meanwhile may not be known
-- here yet. And for how long that is so of who asks. A silence shorter than the window was no reason to use anything.
local function reserved()
  local stored = redis.call('GET', KEYS[2])
  if not stored then return limit, 500 end
  local state = cmsgpack.unpack(stored)
  local base, partitions, all = math.min(state[1], now), state[2], state[3]
  local heard, mine = 0, 500
  for at = 1, #all, 5 do
    local rest = 0
    if all[at + 4] >= window then rest = base - all[at + 3] + math.min(window, 30000) + hold - past end
    if past - (base - all[at + 2]) >= silence then rest = math.max(rest, 500) end
    if rest <= 0 then heard = heard + all[at + 1] end
    if all[at] == member then mine = rest end
  end
  local missing = math.max(0, partitions - heard)
  if missing == 0 then return 0, mine end
  return math.floor(limit / partitions) * missing + limit % partitions, mine
end

-- When so many of the oldest uses do not count any more, or something may have changed.
local function free_at(wanted)
  local sum = 0
  for place, count in ipairs(counts) do
    sum = sum + count
    if sum >= wanted then return times[place] + window end
  end
  if held == 0 and #times > 0 then return times[#times] + window end
  return now + pace
end

-- The answer: kind (0 granted, 1 nothing, 2 unknown), amount, milliseconds.
local answer
local known_from = epoch_since + window + hold
local reserve, unheard = 0, 0
if member ~= '' then reserve, unheard = reserved() end
local room = limit - reserve
if past < known_from then
  answer = { 2, 0, known_from - past }
elseif unheard > 0 then
  answer = { 2, 0, unheard }
elseif want <= 0 then
  answer = { 1, 0, 0 }
elseif used + held < room then
  local amount = math.min(want, room - used - held, most)
  me.held = have + amount
  answer = { 0, amount, 0 }
else
  -- Those who wait already come first: each at a time of its own.
  local over = used + held - room
  local at = free_at(over + bundle * (waiting + 1))
  -- What is held may be given back or dated at any time, and who is not heard may come back.
  if held + reserve > 0 then at = math.min(at, now + pace) end
  at = math.max(at, now)
  me.waits = at
  answer = { 1, 0, at - past }
end

-- Keep it small: the oldest entries are merged to the later time, the oldest holders count as having used all.
while #holders > MOST_HOLDERS do
  local oldest = 1
  for place, holder in ipairs(holders) do
    if holder.ends < holders[oldest].ends then oldest = place end
  end
  add_use(holders[oldest].ends, holders[oldest].held)
  table.remove(holders, oldest)
end
while #times > MOST_USES do
  counts[2] = counts[2] + counts[1]
  table.remove(times, 1)
  table.remove(counts, 1)
end

local last = now
local flat_uses, flat_holders = {}, {}
for place, time in ipairs(times) do
  flat_uses[#flat_uses + 1] = now - time
  flat_uses[#flat_uses + 1] = counts[place]
  last = math.max(last, time)
end
for _, holder in ipairs(holders) do
  local at = #flat_holders
  flat_holders[at + 1], flat_holders[at + 2] = holder.name, holder.held
  flat_holders[at + 3], flat_holders[at + 4] = holder.ends - now, holder.batch
  flat_holders[at + 5] = math.max(0, holder.waits - now)
  last = math.max(last, holder.ends)
end
local state = cmsgpack.pack({ now, flat_uses, flat_holders })
redis.call('SET', KEYS[1], state, 'PX', string.format('%.0f', last + window - now + 1000))
return answer

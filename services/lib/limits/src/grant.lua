-- One lane's limit. KEYS[1]: its state. Everything is counted here, by this server's clock, in one step.
--
-- State, msgpack: { seen, uses, slices }
--   seen    the latest time at which this script ran, ms
--   uses    { { time, count }, … } by time: `count` uses, the last of them at `time`
--   slices  { { number, amount, expires }, … }: lent and not reported
--
-- A use counts until `time + window`, a slice in full until `expires + window`.

local limit = tonumber(ARGV[1])
local window = tonumber(ARGV[2])
local want = tonumber(ARGV[3])
local ttl = tonumber(ARGV[4])
local number = ARGV[5]
local epoch_since = tonumber(ARGV[6])
local previous = ARGV[7]
local previous_used = tonumber(ARGV[8])
local previous_age = tonumber(ARGV[9])
local outside = tonumber(ARGV[10])

-- Bounds of the state, whatever the callers do.
local MOST_USES = 64
local MOST_SLICES = 32
-- Uses that lie closer together than this are one entry, as late as the latest of them.
local grain = math.max(1, math.floor(window / 40))

local clock = redis.call('TIME')
-- What happens now is dated by `now`, rounded up, and what counts ends by `past`, rounded down: a millisecond too
-- long is safe, one too short is not.
local past = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now = past + 1

local seen, uses, slices = now, {}, {}
local stored = redis.call('GET', KEYS[1])
if stored then
  local state = cmsgpack.unpack(stored)
  seen, uses, slices = state[1], state[2], state[3]
end
if seen > now then
  -- The clock was set back: as if no time had passed since the last call.
  local step = seen - now
  for _, use in ipairs(uses) do use[1] = use[1] - step end
  for _, slice in ipairs(slices) do slice[3] = slice[3] - step end
end

local function add_use(time, count)
  if count <= 0 or time + window <= past then return end
  local position = #uses
  while position > 0 and uses[position][1] > time do position = position - 1 end
  local near = uses[position] and math.floor(uses[position][1] / grain) == math.floor(time / grain)
  if near then
    uses[position] = { time, uses[position][2] + count }
  else
    table.insert(uses, position + 1, { time, count })
  end
end

-- What does not count any more.
local still = {}
for _, use in ipairs(uses) do
  if use[1] + window > past then still[#still + 1] = use end
end
uses = still
still = {}
for _, slice in ipairs(slices) do
  if slice[1] == previous then
    -- Reported: what was used counts from its last use, which was not after its end; the rest is free. Not
    -- found: it was reported before, or ended long ago, or was merged below and counts in full.
    add_use(math.min(now - previous_age, slice[3]), previous_used)
  elseif slice[3] + window > past then
    still[#still + 1] = slice
  end
end
slices = still
add_use(now, outside)

local counted = 0
for _, use in ipairs(uses) do counted = counted + use[2] end
for _, slice in ipairs(slices) do counted = counted + slice[2] end

-- The answer: kind (0 granted, 1 nothing, 2 unknown), amount, milliseconds.
local answer
local known_from = epoch_since + window + ttl
if past < known_from then
  answer = { 2, 0, math.min(known_from - past, window + ttl) }
elseif want <= 0 then
  answer = { 1, 0, 0 }
elseif counted < limit then
  -- Never much at once, so that no replica starves the others.
  local amount = math.min(want, limit - counted, math.ceil(limit / 16))
  slices[#slices + 1] = { number, amount, now + ttl }
  answer = { 0, amount, ttl }
else
  local free_at = now + window
  if uses[1] then free_at = uses[1][1] + window end
  for _, slice in ipairs(slices) do
    -- One that still lives will be reported about when it ends.
    local at = slice[3]
    if at <= past then at = at + window end
    free_at = math.min(free_at, at)
  end
  answer = { 1, 0, math.max(1, free_at - past) }
end

-- Keep it small: the oldest entries are merged to the later time, the oldest slices count as used up.
while #slices > MOST_SLICES do
  local oldest = 1
  for position, slice in ipairs(slices) do
    if slice[3] < slices[oldest][3] then oldest = position end
  end
  add_use(slices[oldest][3], slices[oldest][2])
  table.remove(slices, oldest)
end
while #uses > MOST_USES do
  uses[2][2] = uses[2][2] + uses[1][2]
  table.remove(uses, 1)
end

local last = 0
if uses[1] then last = uses[#uses][1] end
for _, slice in ipairs(slices) do last = math.max(last, slice[3]) end
if last == 0 then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], cmsgpack.pack({ now, uses, slices }), 'PX', string.format('%.0f', last + window - now + 1000))
end
return answer

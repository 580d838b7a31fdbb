-- Charges a number of uses to several scopes at once, or to none. KEYS: their states, one each.
-- ARGV: time in ms (0 = this server's clock), uses, how many ms later than now they may be charged, number of the
-- calendar month, name of the caller's book, and for each scope a JSON object:
--   w  { { length, limit }, … }: its windows, ms; of length 0 is the calendar month
--   s  number of the report, 0 = none; a report is taken once
--   r  { { length, { { time, count }, … } }, … }: what was charged without this server
--
-- State, msgpack: { seen, last, { { length, { { time, count }, … } }, … }, { { book, report, seen }, … } }
--   last  the latest time at which something is charged; later than now when mail is queued
-- A use at x counts as one at the end of its bucket of 1/128 of the window: never too short, at most 1 % too long.
--
-- The answer: { kind, time, now, scope }; kind 0 charged at `time`, 1 over (it would fit at `time`), 2 the month is
-- used up, 3 more than the limit itself; `scope` is the first that says so.

local MOST_ENTRIES = 512
local MOST_BOOKS = 64
local MONTH_MS = 32 * 86400000

local now = tonumber(ARGV[1])
if now == 0 then
  local clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end
local uses = tonumber(ARGV[2])
local latest = tonumber(ARGV[3])
local month = tonumber(ARGV[4])
local book = ARGV[5]

local function add(entries, length, time, count)
  local bucket = month
  if length > 0 then
    local grain = math.max(1, math.floor(length / 128))
    bucket = math.ceil(time / grain) * grain
  end
  local position = #entries
  while position > 0 and entries[position][1] > bucket do position = position - 1 end
  if position > 0 and entries[position][1] == bucket then
    entries[position][2] = entries[position][2] + count
  else
    table.insert(entries, position + 1, { bucket, count })
  end
end

local function load(key, ask)
  local state = { now, 0, {}, {} }
  local stored = redis.call('GET', key)
  if stored then state = cmsgpack.unpack(stored) end
  local back = math.max(0, state[1] - now)
  -- The clock was set back: as if no time had passed since the last call.
  state[1], state[2] = now, state[2] - back
  local kept = {}
  for _, window in ipairs(ask.w) do
    local length = window[1]
    local still = {}
    for _, known in ipairs(state[3]) do
      if known[1] == length then
        for _, entry in ipairs(known[2]) do
          if length == 0 then
            if entry[1] == month then still[#still + 1] = entry end
          else
            entry[1] = entry[1] - back
            if entry[1] + length > now then still[#still + 1] = entry end
          end
        end
      end
    end
    kept[#kept + 1] = { length, still }
  end
  state[3] = kept
  if ask.s > 0 then
    local mine
    for _, known in ipairs(state[4]) do
      if known[1] == book then mine = known end
    end
    if not mine then
      mine = { book, 0, now }
      table.insert(state[4], mine)
      if #state[4] > MOST_BOOKS then
        local oldest = 1
        for position, known in ipairs(state[4]) do
          if known[3] < state[4][oldest][3] then oldest = position end
        end
        table.remove(state[4], oldest)
      end
    end
    if ask.s > mine[2] then
      mine[2] = ask.s
      for _, reported in ipairs(ask.r) do
        for _, window in ipairs(kept) do
          if window[1] == reported[1] then
            for _, entry in ipairs(reported[2]) do
              -- Of another month, or too old to count.
              local counts = entry[1] == month
              if window[1] > 0 then counts = entry[1] + window[1] > now end
              if counts then add(window[2], window[1], math.min(entry[1], now), entry[2]) end
            end
          end
        end
      end
    end
    mine[3] = now
  end
  return state
end

local asks, states = {}, {}
local at, kind, binding = now, 0, 0
for position, key in ipairs(KEYS) do
  local ask = cjson.decode(ARGV[5 + position])
  local state = load(key, ask)
  asks[position], states[position] = ask, state
  local before = at
  -- In the order of coming: nobody passes what is queued.
  at = math.max(at, state[2])
  for number, window in ipairs(ask.w) do
    local length, limit = window[1], window[2]
    local entries = state[3][number][2]
    if uses > limit and kind < 3 then
      kind, binding = 3, position
    elseif length == 0 then
      local used = 0
      if entries[1] then used = entries[1][2] end
      if uses > 0 and used + uses > limit and kind < 2 then kind, binding = 2, position end
    else
      local counted = 0
      for _, entry in ipairs(entries) do counted = counted + entry[2] end
      for _, entry in ipairs(entries) do
        if entry[1] + length > at then
          if counted + uses <= limit then break end
          at = entry[1] + length
        end
        counted = counted - entry[2]
      end
      if #entries > MOST_ENTRIES and kind == 0 then kind, binding = 1, position end
    end
  end
  if at > before and kind < 2 then binding = position end
end
if kind == 0 and uses > 0 and at - now > latest then kind = 1 end

for position, key in ipairs(KEYS) do
  local ask, state = asks[position], states[position]
  local longest = 0
  for number, window in ipairs(state[3]) do
    if kind == 0 and uses > 0 then add(window[2], window[1], at, uses) end
    longest = math.max(longest, window[1] == 0 and MONTH_MS or window[1])
  end
  if kind == 0 and uses > 0 then state[2] = math.max(state[2], at) end
  local ttl = math.max(state[2], now) - now + longest + 60000
  redis.call('SET', key, cmsgpack.pack(state), 'PX', string.format('%.0f', ttl))
end
return { kind, at, now, binding }

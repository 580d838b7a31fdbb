-- Notes what somebody did, and answers what is usual of it. KEYS: the state, one.
-- ARGV: time in ms (0 = this server's clock), and two JSON objects:
--   the bounds: n, r, s  { at least, factor }: of new networks in a day, recipients and senders in an hour
--               learn    ms for which everything is only learned
--               pardon   ms: networks seen until then are known, and what was counted until then is forgotten
--   what was done: n  networks of what was accepted      l  networks of logins that succeeded
--                  f  { { network, failed logins }, … }  r, x, w  recipients accepted, refused, weight of warnings
--                  s  senders
--
-- State, msgpack: { since, last call, pardon, networks, hour, day, past, failed, guessed }
--   networks  { { network, first, last }, … }            hour  { number, recipients, refused, weight, { sender, … } }
--   day       { number, most recipients and most senders of an hour, new networks }; past: those of 14 days
--   failed    { { network, time, count }, … }            guessed  { time, count, network }
-- What is learned of one hour or day is no more than what would be noticed in it, so that a thief does not become usual at once,
-- and who grows becomes so in a few hours.
--
-- The answer: { { now, learning, new networks, usual, the first of them, recipients, usual, refused, senders, usual, weight,
-- guessed, when, begin of the hour }, { network of the guessed login, new networks, the newest first } }

local HOUR, DAY = 3600000, 86400000
local MEMORY_DAYS = 14
local MOST_NETWORKS, MOST_SENDERS, MOST_FAILED, MOST_TOLD = 256, 256, 32, 8

local now = tonumber(ARGV[1])
if now == 0 then
  local clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end
local bounds = cjson.decode(ARGV[2])
local done = cjson.decode(ARGV[3])

local state
local stored = redis.call('GET', KEYS[1])
if stored then state = cmsgpack.unpack(stored) end
if not state then
  local hour, day = math.floor(now / HOUR), math.floor(now / DAY)
  state = { now, now, 0, {}, { hour, 0, 0, 0, {} }, { day, 0, 0, 0 }, {}, {}, { 0, 0, '' } }
end
-- The clock was set back: as if no time had passed since the last call.
now = math.max(now, state[2])
state[2] = now
local since = state[1]
local learning = now < since + bounds.learn
local networks, hour, day, past, failed, guessed = state[4], state[5], state[6], state[7], state[8], state[9]

local function usual(field, today)
  local most = today and day[field] or 0
  for _, known in ipairs(past) do most = math.max(most, known[field]) end
  return most
end

-- Of an hour or day that began at this time.
local function learned(count, began, bound, usually)
  if math.max(began, since) < since + bounds.learn then return count end
  return math.min(count, math.max(bound[1], usually * bound[2]))
end

local this_hour, this_day = math.floor(now / HOUR), math.floor(now / DAY)
if hour[1] ~= this_hour then
  day[2] = math.max(day[2], learned(hour[2], hour[1] * HOUR, bounds.r, usual(2, true)))
  day[3] = math.max(day[3], learned(#hour[5], hour[1] * HOUR, bounds.s, usual(3, true)))
  hour = { this_hour, 0, 0, 0, {} }
end
if day[1] ~= this_day then
  day[4] = learned(day[4], day[1] * DAY, bounds.n, usual(4, false))
  table.insert(past, day)
  day = { this_day, 0, 0, 0 }
end
if bounds.pardon > state[3] then
  state[3] = bounds.pardon
  hour = { this_hour, 0, 0, 0, {} }
  guessed = { 0, 0, '' }
end
local function kept(list, holds)
  local still = {}
  for _, entry in ipairs(list) do
    if holds(entry) then still[#still + 1] = entry end
  end
  return still
end
past = kept(past, function(known) return known[1] + MEMORY_DAYS >= this_day end)
networks = kept(networks, function(known) return known[3] + MEMORY_DAYS * DAY > now end)
failed = kept(failed, function(known) return known[2] + HOUR > now end)

for _, attempt in ipairs(done.f) do
  local mine
  for _, known in ipairs(failed) do
    if known[1] == attempt[1] then mine = known end
  end
  if mine then
    -- Of an hour from the first of them: who fails now and then all day is no guesser.
    mine[3] = mine[3] + attempt[2]
  else
    table.insert(failed, { attempt[1], now, attempt[2] })
    if #failed > MOST_FAILED then table.remove(failed, 1) end
  end
end

-- Whether it is new.
local function seen(network)
  for _, known in ipairs(networks) do
    if known[1] == network then
      known[3] = now
      return false
    end
  end
  if #networks >= MOST_NETWORKS then
    local oldest = 1
    for position, known in ipairs(networks) do
      if known[3] < networks[oldest][3] then oldest = position end
    end
    table.remove(networks, oldest)
  end
  table.insert(networks, { network, now, now })
  day[4] = day[4] + 1
  return true
end
-- The very first one is where it belongs.
local known_before = #networks > 0
for _, network in ipairs(done.l) do
  if seen(network) and known_before and not learning then
    local others = 0
    for _, attempt in ipairs(failed) do
      if attempt[1] ~= network then others = others + attempt[3] end
    end
    if others > 0 and (guessed[1] + HOUR <= now or others >= guessed[2]) then
      guessed = { now, others, network }
    end
  end
end
for _, network in ipairs(done.n) do seen(network) end

hour[2], hour[3], hour[4] = hour[2] + done.r, hour[3] + done.x, hour[4] + done.w
for _, sender in ipairs(done.s) do
  local is_known = #hour[5] >= MOST_SENDERS
  for _, known in ipairs(hour[5]) do
    if known == sender then is_known = true end
  end
  if not is_known then table.insert(hour[5], sender) end
end

local known_until = math.max(now - DAY, state[3], since + bounds.learn)
local fresh = kept(networks, function(known) return known[2] > known_until end)
table.sort(fresh, function(one, other) return one[2] > other[2] end)
local told = { '' }
if guessed[1] + HOUR <= now then guessed = { 0, 0, '' } end
told[1] = guessed[3]
for position, known in ipairs(fresh) do
  if position <= MOST_TOLD then told[#told + 1] = known[1] end
end
local fresh_since = #fresh > 0 and fresh[#fresh][2] or 0
local numbers = {
  now, learning and 1 or 0, #fresh, usual(4, false), fresh_since, hour[2], usual(2, true), hour[3], #hour[5], usual(3, true),
  hour[4], guessed[2], guessed[1], this_hour * HOUR,
}
state[4], state[5], state[6], state[7], state[8], state[9] = networks, hour, day, past, failed, guessed
redis.call('SET', KEYS[1], cmsgpack.pack(state), 'PX', string.format('%.0f', (MEMORY_DAYS + 1) * DAY))
return { numbers, told }

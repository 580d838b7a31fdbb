-- A scheduler is heard. KEYS[1]: those of this shard that are. ARGV: its name, how many partitions it has and how many there
-- are, for how long it was not heard, and after what time of silence it may use a share of its own, ms.
--
-- State, msgpack: { base, partitions, members }, times as distances before `base`, ms
--   members  { name, has, heard, back, away, … }
--            heard  when it was, last
--            back   when it was after its last silence, which was `away` long; 0 = there was none that still matters
local name, has, partitions = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local silent_for, silence = tonumber(ARGV[4]), tonumber(ARGV[5])
-- Who is gone for so long is forgotten; who comes back says how long it was.
local KEPT = 60000

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local members, me = {}, { name = name, back = 0, away = 0 }
local stored = redis.call('GET', KEYS[1])
if stored then
  local state = cmsgpack.unpack(stored)
  -- When the clock was set back it is as if no time had passed.
  local base, old = math.min(state[1], now), state[3]
  for at = 1, #old, 5 do
    local member = { name = old[at], has = old[at + 1], heard = base - old[at + 2], back = base - old[at + 3],
                     away = old[at + 4] }
    if member.name == name then
      me = member
      -- What it says may have lain in a buffer since before.
      silent_for = math.max(silent_for, now - member.heard)
    elseif now - member.heard < KEPT then
      members[#members + 1] = member
    end
  end
end
-- A silence matters for as long as grant.lua looks at it: twice half a minute.
if now - me.back > KEPT then me.away = 0 end
if silent_for >= silence then
  me.back, me.away = now, math.max(me.away, silent_for)
end
me.has, me.heard = has, now
members[#members + 1] = me

local flat = {}
for _, member in ipairs(members) do
  local at = #flat
  flat[at + 1], flat[at + 2], flat[at + 3] = member.name, member.has, now - member.heard
  flat[at + 4], flat[at + 5] = now - member.back, member.away
end
redis.call('SET', KEYS[1], cmsgpack.pack({ now, partitions, flat }), 'PX', 86400000)
return now

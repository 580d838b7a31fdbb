-- Takes back what was charged and not used. KEYS: the states; ARGV: time at which it was charged, uses, number of
-- the calendar month at that time.
local time = tonumber(ARGV[1])
local uses = tonumber(ARGV[2])
local month = tonumber(ARGV[3])
for _, key in ipairs(KEYS) do
  local stored = redis.call('GET', key)
  if stored then
    local state = cmsgpack.unpack(stored)
    for _, window in ipairs(state[3]) do
      local length = window[1]
      local bucket = month
      if length > 0 then
        local grain = math.max(1, math.floor(length / 128))
        bucket = math.ceil(time / grain) * grain
      end
      for position, entry in ipairs(window[2]) do
        if entry[1] == bucket then
          entry[2] = entry[2] - uses
          if entry[2] <= 0 then table.remove(window[2], position) end
          break
        end
      end
    end
    redis.call('SET', key, cmsgpack.pack(state), 'KEEPTTL')
  end
end
return 1

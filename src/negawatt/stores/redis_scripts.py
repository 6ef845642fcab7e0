"""What the Redis store does on the server, each as one script, so that nobody sees it half done.

Under one prefix:

    v:KEY      the value
    m          of each key its group, size, moment of expiry and tags: what is not in here is not there
    x          all keys by the moment at which they expire
    u:GROUP    the keys of a group by their last use
    t:TAG      the keys of a tag
    b          the bytes of each group
    c:KEY      who has the right to make what belongs under the key, and until when

The first arguments of each script are the prefix and the time in milliseconds. What lives and what has lapsed is
decided by that time alone; Redis' own expiry, an hour later, only carries away what nobody asks for any more.

Redis may evict any of these by itself (``maxmemory``). A value without its books, or an entry that one of its tags has
forgotten, is a miss and is cleared away: nothing is served that a deletion by tag would not find. Sums are taken
back by what ``m`` says, so that they stay right.
"""

GRACE_MS = 3_600_000  # Redis' own expiry comes so much later than ours
MOST_DROPPED = 1_000  # by one put: some 30 ms
MOST_SWEPT = 20  # of what has expired, by one put

_BOOKS = """
local p, now = ARGV[1], tonumber(ARGV[2])

local function about(key)
  local packed = redis.call('HGET', p .. 'm', key)
  return packed and cmsgpack.unpack(packed)
end

local function readable(key, known)
  return known and known.expires > now and redis.call('EXISTS', p .. 'v:' .. key) == 1
end

local function drop(key, value_stays)
  local known = about(key)
  redis.call('ZREM', p .. 'x', key)
  if not value_stays then redis.call('UNLINK', p .. 'v:' .. key) end
  if not known then return end
  redis.call('HDEL', p .. 'm', key)
  redis.call('ZREM', p .. 'u:' .. known.group, key)
  for _, tag in ipairs(known.tags) do redis.call('ZREM', p .. 't:' .. tag, key) end
  if redis.call('HINCRBY', p .. 'b', known.group, -known.size) <= 0
    and redis.call('EXISTS', p .. 'u:' .. known.group) == 0 then
    redis.call('HDEL', p .. 'b', known.group)
  end
end

local function sweep(most)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', p .. 'x', '-inf', now, 'LIMIT', 0, most)) do drop(key) end
end
"""

# ARGV: prefix, now, key.
GET = (
    _BOOKS
    + """
local key = ARGV[3]
local known = about(key)
if not known then return false end
local value = known.expires > now and redis.call('GET', p .. 'v:' .. key)
for _, tag in ipairs(known.tags) do
  value = value and redis.call('ZSCORE', p .. 't:' .. tag, key) and value
end
if not value then drop(key) return false end
-- A server that is full refuses this write; that is no reason not to read.
redis.pcall('ZADD', p .. 'u:' .. known.group, now, key)
return value
"""
)

# ARGV: prefix, now, key, value, ttl, grace, group, group_max_bytes or -1, max_bytes, most swept, most dropped, tags.
PUT = (
    _BOOKS
    + """
local key, value, ttl, grace, group = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local group_most, most, left = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[11])

local size = #key + #value
if size > most or (group_most >= 0 and size > group_most) then drop(key) return 0 end
-- First, because a server that is full refuses it, and only as long as nothing else was written.
redis.call('SET', p .. 'v:' .. key, value, 'PX', ttl + grace)

if redis.call('EXISTS', p .. 'm', p .. 'b') == 1 then  -- one half of the books is lost: begin anew
  for _, name in ipairs(redis.call('HKEYS', p .. 'b')) do redis.call('UNLINK', p .. 'u:' .. name) end
  redis.call('UNLINK', p .. 'm', p .. 'b', p .. 'x')
end
drop(key, true)
sweep(tonumber(ARGV[10]))

local tags = {}
for i = 12, #ARGV do tags[#tags + 1] = ARGV[i] end
redis.call('HSET', p .. 'm', key, cmsgpack.pack({group = group, size = size, expires = now + ttl, tags = tags}))
redis.call('ZADD', p .. 'x', now + ttl, key)
redis.call('ZADD', p .. 'u:' .. group, now, key)
for _, tag in ipairs(tags) do redis.call('ZADD', p .. 't:' .. tag, 0, key) end
redis.call('HINCRBY', p .. 'b', group, size)

local function oldest(name)  -- of a group, but never the newest entry of all
  while true do
    local found = redis.call('ZRANGE', p .. 'u:' .. name, 0, 1)
    local other = found[1] ~= key and found[1] or found[2]
    if not other then return nil end
    local known = about(other)
    if known and known.group == name then return other end
    redis.call('ZREM', p .. 'u:' .. name, other)
  end
end

local function one_goes(name)
  local other = left > 0 and oldest(name)
  if not other then return false end
  drop(other)
  left = left - 1
  return true
end

while group_most >= 0 and tonumber(redis.call('HGET', p .. 'b', group)) > group_most do
  if not one_goes(group) then drop(key) return 0 end
end
while true do
  local total, largest, largest_name = 0, -1, nil
  local all = redis.call('HGETALL', p .. 'b')
  for i = 1, #all, 2 do
    local held = tonumber(all[i + 1])
    total = total + held
    if held > largest and oldest(all[i]) then largest, largest_name = held, all[i] end
  end
  if total <= most then return 1 end
  if not largest_name or not one_goes(largest_name) then drop(key) return 0 end
end
"""
)

# ARGV: prefix, now, key.
DELETE = (
    _BOOKS
    + """
local there = readable(ARGV[3], about(ARGV[3]))
drop(ARGV[3])
return there and 1 or 0
"""
)

# One batch. ARGV: prefix, now, dry run, from which key on ('-' or '(KEY'), how many at most, tags.
# Returns how many it found, and the key to go on after, unless that was all.
DELETE_TAGGED = (
    _BOOKS
    + """
local dry, most = ARGV[3] == '1', tonumber(ARGV[5])
local fewest, smallest = math.huge, nil
for i = 6, #ARGV do
  local held = redis.call('ZCARD', p .. 't:' .. ARGV[i])
  if held < fewest then fewest, smallest = held, p .. 't:' .. ARGV[i] end
end
local count, keys = 0, redis.call('ZRANGEBYLEX', smallest, ARGV[4], '+', 'LIMIT', 0, most)
for _, key in ipairs(keys) do
  local known = about(key)
  local has, all = {}, known and true
  for _, tag in ipairs(known and known.tags or {}) do has[tag] = true end
  for i = 6, #ARGV do all = all and has[ARGV[i]] end
  if all then
    if readable(key, known) then count = count + 1 end
    if not dry then drop(key) end
  end
end
if #keys < most then return {count} end
return {count, keys[#keys]}
"""
)

# ARGV: prefix, now.
STATS = (
    _BOOKS
    + """
local bytes = 0
sweep(1000)
for _, held in ipairs(redis.call('HVALS', p .. 'b')) do bytes = bytes + tonumber(held) end
return {redis.call('HLEN', p .. 'm') - redis.call('ZCOUNT', p .. 'x', '-inf', now), bytes}
"""
)

# ARGV: prefix, now, key, token, ttl, grace.
CLAIM = """
local name, now, ttl = ARGV[1] .. 'c:' .. ARGV[3], tonumber(ARGV[2]), tonumber(ARGV[5])
local held = redis.call('GET', name)
if held and cmsgpack.unpack(held).lapses > now then return 0 end
redis.call('SET', name, cmsgpack.pack({token = ARGV[4], lapses = now + ttl}), 'PX', ttl + tonumber(ARGV[6]))
return 1
"""

# ARGV: prefix, now, key, token.
RELEASE = """
local name = ARGV[1] .. 'c:' .. ARGV[3]
local held = redis.call('GET', name)
if held and cmsgpack.unpack(held).token == ARGV[4] then redis.call('DEL', name) end
return 0
"""

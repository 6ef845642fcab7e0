"""What the Redis store does on the server, each as one script, so that nobody sees it half done.

Under one prefix: ``v:KEY`` the value, ``m:KEY`` its group, size and tags, ``x`` all keys by the time they expire,
``t:TAG`` the keys of a tag, ``u:GROUP`` the keys of a group by their last use, ``b`` the bytes of each group. Time is
given by the caller, in milliseconds.
"""

# Takes one key away, with all that is said of it.
_DROP = """
local function drop(p, key)
  local group = redis.call('HGET', p .. 'm:' .. key, 'g')
  if not group then return 0 end
  local size = tonumber(redis.call('HGET', p .. 'm:' .. key, 's'))
  for tag in string.gmatch(redis.call('HGET', p .. 'm:' .. key, 't'), '[^\\n]+') do
    redis.call('SREM', p .. 't:' .. tag, key)
  end
  redis.call('ZREM', p .. 'u:' .. group, key)
  if redis.call('HINCRBY', p .. 'b', group, -size) <= 0 then redis.call('HDEL', p .. 'b', group) end
  redis.call('ZREM', p .. 'x', key)
  redis.call('DEL', p .. 'v:' .. key, p .. 'm:' .. key)
  return 1
end
local function sweep(p, now, most)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', p .. 'x', '-inf', now, 'LIMIT', 0, most)) do drop(p, key) end
end
"""

# KEYS: none. ARGV: prefix, key, now.
GET = """
local p, key, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local expires = redis.call('ZSCORE', p .. 'x', key)
if not expires or tonumber(expires) <= now then return false end
local value = redis.call('GET', p .. 'v:' .. key)
if value then redis.call('ZADD', p .. 'u:' .. redis.call('HGET', p .. 'm:' .. key, 'g'), now, key) end
return value
"""

# ARGV: prefix, key, now, value, ttl, tags (lines), group, group_max_bytes or -1, max_bytes.
PUT = (
    _DROP
    + """
local p, key, now, value, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local tags, group, group_most, most = ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
drop(p, key)
sweep(p, now, 20)
local size = #key + #value
if size > most or (group_most >= 0 and size > group_most) then return 0 end
redis.call('SET', p .. 'v:' .. key, value)
redis.call('HSET', p .. 'm:' .. key, 'g', group, 's', size, 't', tags)
redis.call('ZADD', p .. 'x', now + ttl, key)
redis.call('ZADD', p .. 'u:' .. group, now, key)
for tag in string.gmatch(tags, '[^\\n]+') do redis.call('SADD', p .. 't:' .. tag, key) end
local bytes = redis.call('HINCRBY', p .. 'b', group, size)
local function oldest(name)
  for _, other in ipairs(redis.call('ZRANGE', p .. 'u:' .. name, 0, 1)) do
    if other ~= key then return other end
  end
end
while group_most >= 0 and tonumber(redis.call('HGET', p .. 'b', group)) > group_most do
  drop(p, oldest(group))
end
while true do
  local total, largest, largest_name = 0, -1, nil
  local all = redis.call('HGETALL', p .. 'b')
  for i = 1, #all, 2 do
    local held = tonumber(all[i + 1])
    total = total + held
    if held > largest and oldest(all[i]) then largest, largest_name = held, all[i] end
  end
  if total <= most or not largest_name then return 1 end
  drop(p, oldest(largest_name))
end
"""
)

# ARGV: prefix, key, now.
DELETE = (
    _DROP
    + """
local expires = redis.call('ZSCORE', ARGV[1] .. 'x', ARGV[2])
local alive = expires and tonumber(expires) > tonumber(ARGV[3])
drop(ARGV[1], ARGV[2])
return alive and 1 or 0
"""
)

# ARGV: prefix, now, dry run, tags.
DELETE_TAGGED = (
    _DROP
    + """
local p, now, count, names = ARGV[1], tonumber(ARGV[2]), 0, {}
for i = 4, #ARGV do names[#names + 1] = p .. 't:' .. ARGV[i] end
for _, key in ipairs(redis.call('SINTER', unpack(names))) do
  local expires = redis.call('ZSCORE', p .. 'x', key)
  if expires and tonumber(expires) > now then count = count + 1 end
  if ARGV[3] == '0' then drop(p, key) end
end
return count
"""
)

# ARGV: prefix, now.
STATS = (
    _DROP
    + """
local p, now, bytes = ARGV[1], tonumber(ARGV[2]), 0
sweep(p, now, 1000)
for _, held in ipairs(redis.call('HVALS', p .. 'b')) do bytes = bytes + tonumber(held) end
return {redis.call('ZCOUNT', p .. 'x', '(' .. now, '+inf'), bytes}
"""
)

# ARGV: name, token.
RELEASE = "if redis.call('GET', ARGV[1]) == ARGV[2] then return redis.call('DEL', ARGV[1]) end return 0"

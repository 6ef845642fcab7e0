"""What the shared books do on the Redis server, each as one script, so that nobody sees it half done.

Under one prefix:

    l:LINE    a line: held (spent and reserved), spent, assumed, unknown, ends
    lines     all lines by the moment at which their period ends
    r:ID      a reservation: its lines and amounts, one after the other; ``void``: it was given up before it came
    ready     is written by who asks whether anything can be: a server may answer, and have no room or be a copy
    open      all reservations that are neither settled nor lapsed, by the moment at which they lapse

The first arguments of each script are the prefix and the time in milliseconds: no other clock decides. Redis' own
expiry, a day after the period, only carries away what nobody asks for any more. Amounts are
compared by the sign of an integer that HINCRBY has made, never as Lua's numbers, which are exact only up to 2^53.
"""

_LAPSE = """
local p, now = ARGV[1], tonumber(ARGV[2])

-- What a replica that died has reserved counts as spent: nobody knows any more what became of it.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. 'open', '-inf', now, 'LIMIT', 0, 20)) do
  redis.call('ZREM', p .. 'open', id)
  local parts = redis.call('HGET', p .. 'r:' .. id, 'claims')
  if parts then
    redis.call('HSET', p .. 'r:' .. id, 'lapsed', 1)
    for _, claim in ipairs(cmsgpack.unpack(parts)) do
      local line = p .. 'l:' .. claim[1]
      if redis.call('EXISTS', line) == 1 then
        redis.call('HINCRBY', line, 'spent', claim[2])
        redis.call('HINCRBY', line, 'assumed', 1)
      end
    end
  end
end
"""

# ARGV: prefix, now, lapses, then of each reservation: id, how many claims, and of each claim: line, ends (ms), amount,
# amount - limit, limit - amount. Where the amount is 0, 1 stands in its place in the last two.
# Returns of each reservation: held, and what each line holds then; or short, the place of the claim that does not fit,
# and what its line has spent and holds; or void.
RESERVE = (
    _LAPSE
    + """
local lapses = tonumber(ARGV[3])

local function reserve(id, first, last)
  if redis.call('EXISTS', p .. 'r:' .. id) == 1 then return {'void'} end
  for i = first, last, 5 do
    local line = p .. 'l:' .. ARGV[i]
    local over = redis.call('HINCRBY', line, 'held', ARGV[i + 3])
    redis.call('HINCRBY', line, 'held', ARGV[i + 4])
    redis.call('PEXPIRE', line, math.max(0, tonumber(ARGV[i + 1]) - now) + 86400000)
    if over > 0 then
      return {'short', (i - first) / 5, redis.call('HGET', line, 'spent') or '0', redis.call('HGET', line, 'held')}
    end
  end
  local claims, held, latest = {}, {'held'}, lapses
  for i = first, last, 5 do
    local line, ends = p .. 'l:' .. ARGV[i], tonumber(ARGV[i + 1])
    redis.call('HINCRBY', line, 'held', ARGV[i + 2])
    redis.call('HSET', line, 'ends', ARGV[i + 1])
    redis.call('ZADD', p .. 'lines', ends, ARGV[i])
    held[#held + 1] = redis.call('HGET', line, 'held')
    claims[#claims + 1] = {ARGV[i], ARGV[i + 2]}
    latest = math.max(latest, ends)
  end
  redis.call('HSET', p .. 'r:' .. id, 'claims', cmsgpack.pack(claims))
  redis.call('PEXPIRE', p .. 'r:' .. id, math.max(0, latest - now) + 86400000)
  redis.call('ZADD', p .. 'open', lapses, id)
  return held
end

local found, i = {}, 4
while i <= #ARGV do
  local last = i + 1 + 5 * tonumber(ARGV[i + 1])
  found[#found + 1] = reserve(ARGV[i], i + 2, last)
  i = last + 1
end
return found
"""
)

# ARGV: prefix, now, then of each reservation: id, how many claims, and of each claim: line, amount spent less what was
# reserved, amount spent, assumed (0 or 1), unknown (0 or 1).
SETTLE = """
local p, now, i = ARGV[1], tonumber(ARGV[2]), 3
while i <= #ARGV do
  local id, count = ARGV[i], tonumber(ARGV[i + 1])
  i = i + 2
  local name = p .. 'r:' .. id
  local known, lapsed = redis.call('HGET', name, 'claims'), redis.call('HGET', name, 'lapsed')
  for c = 1, count do
    local line = p .. 'l:' .. ARGV[i]
    if known and redis.call('EXISTS', line) == 1 then
      redis.call('HINCRBY', line, 'held', ARGV[i + 1])
      redis.call('HINCRBY', line, 'spent', ARGV[lapsed and i + 1 or i + 2])
      redis.call('HINCRBY', line, 'assumed', ARGV[i + 3] - (lapsed and 1 or 0))
      redis.call('HINCRBY', line, 'unknown', ARGV[i + 4])
      if redis.call('HGET', line, 'held') == '0' and redis.call('HGET', line, 'unknown') == '0' then
        redis.call('DEL', line)  -- a call that cost nothing leaves nothing
        redis.call('ZREM', p .. 'lines', ARGV[i])
      end
    end
    i = i + 5
  end
  if known then
    redis.call('DEL', name)
    redis.call('ZREM', p .. 'open', id)
  else
    redis.call('HSET', name, 'void', 1)  -- what was given up before it came is not to be reserved afterwards
    redis.call('PEXPIRE', name, 60000)
  end
end
return 0
"""

# ARGV: prefix, now, where to begin, how many at most.
# Returns of each line its name, ends, spent, held, assumed, unknown.
LINES = (
    _LAPSE
    + """
redis.call('ZREMRANGEBYSCORE', p .. 'lines', '-inf', now - 86400000)
local found = {}
local first, most = tonumber(ARGV[3]), tonumber(ARGV[4])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', p .. 'lines', '(' .. ARGV[2], '+inf', 'LIMIT', first, most)) do
  local all = redis.call('HMGET', p .. 'l:' .. name, 'ends', 'spent', 'held', 'assumed', 'unknown')
  found[#found + 1] = {name, all[1] or '0', all[2] or '0', all[3] or '0', all[4] or '0', all[5] or '0'}
end
return found
"""
)

READY = "return redis.call('SET', ARGV[1] .. 'ready', ARGV[2], 'PX', 60000)"

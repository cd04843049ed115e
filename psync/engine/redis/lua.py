"""Lua scripts run the verbs on the server: each script is atomic, and each reply begins with a status.

A script that changes something keeps its reply at KEYS[1]. So a request that is repeated because its reply was lost
gets that reply, and changes nothing twice. ARGV[1] is the prefix of all keys, ARGV[2] the number of the request, in 16
digits. A request whose number ends with 00 renews the lifetime of the kept reply, 900 seconds.

Keys, behind the prefix: ``n:`` the value at a name, ``d:`` and ``f:`` the names and the folders in a folder, ``h:``
the holder of a lock, ``o:`` owners, ``s:`` sessions that may hold locks, ``w:`` descriptions of owners, kept for a day
longer, ``r:`` registers, ``q:`` last replies, ``t`` the last token. A log has ``l:`` its numbers, ``lp:`` the payloads
of all records that are not final, ``lw:`` and ``ld:`` the positions of waiting and delayed ones, ``lc:`` the marks of
claimed ones, ``lm:`` the marks of the others (none for a record that waits as it was appended). Channels that announce
the change of a name begin with ``!``.
"""

from __future__ import annotations

import re
from hashlib import sha1
from typing import NamedTuple

OK, BUSY, NO_PLACE, NOBODY, LOST, SEALED, LATE, BUCKET = range(8)
"""Status of a reply: done; another holder excludes us; a folder or a value is in the way; the caller's session has
ended; the caller lost its hold; the log takes no more records; a later request was answered before, so nobody waits for
this one; a bucket is in the way of a value."""


class Script(NamedTuple):
    source: bytes
    sha: bytes
    changes: bool


def _script(body: str, *, changes: bool = True) -> Script:
    text = (_NOTED if changes else "BODY").replace("BODY", body)
    for name in reversed(_HELPERS):  # each helper uses only those before it
        if f"{name}(" in text:
            text = _HELPERS[name] + text
    used = [key for key in _KEYS if re.search(rf"\b{key}\b(?!:)", text)]
    text = "".join(f"local {key} = P..'{key}:'..ARGV[3]\n" for key in used) + text
    source = (_BEGIN + text).encode()
    return Script(source, sha1(source, usedforsecurity=False).hexdigest().encode(), changes)


_NOTED = """
local kept = call('GET', KEYS[1])
if kept then
  local last = string.sub(kept, 1, 16)
  if last == ARGV[2] then return cmsgpack.unpack(string.sub(kept, 17)) end
  if last > ARGV[2] then return {6} end
end
local function body() BODY end
local reply, same = body()
if reply[1] ~= 1 and not same then
  local text = ARGV[2]..cmsgpack.pack(reply)
  if string.sub(ARGV[2], -2) == '00' then call('SET', KEYS[1], text, 'EX', 900)
  else call('SET', KEYS[1], text, 'KEEPTTL') end
end
return reply
"""
"""A script that changes something. Its body returns the reply, and whether nothing was changed. A request that arrives
after its successor, on a connection that was given up long ago, is not executed."""
_KEYS = "l", "lp", "lm", "lw", "lc", "ld"
"""Keys of the log that ARGV[3] names. A script gets those that it uses, under these names."""
_BEGIN = "local P, call = ARGV[1], redis.call\n"

_HELPERS = {
    "split": """
local function split(at)
  local up, last = string.match(at, '^(.*)/([^/]*)$')
  if up then return up, last end
  return '', at
end
""",
    "busy": """
local function busy(key, mine)
  local h = call('GET', P..'h:'..key)
  if h == mine then return nil end
  if mine ~= '' then return {4} end
  if not h then return nil end
  local session = string.match(h, '^%d+')
  if call('EXISTS', P..'s:'..session) == 0 then return nil end
  return {1, session}
end
""",
    "no_place": """
local function no_place(name)
  if call('EXISTS', P..'d:'..name, P..'f:'..name) > 0 then return {2, 'folder'} end
  local at = split(name)
  while at ~= '' do
    if call('EXISTS', P..'n:'..at) == 1 then return {2, 'below'} end
    at = split(at)
  end
end
""",
    "no_bucket": """
local function no_bucket(name)
  local k = P..'n:'..name
  if call('EXISTS', k) == 1 then
    if call('GETRANGE', k, 0, 0) == 'B' then return {7, name} end
    return
  end
  local up = split(name)
  for _, last in ipairs(call('SMEMBERS', P..'d:'..up)) do
    if last == 'xx' or string.match(last, '^[0-9a-f][0-9a-f]$') then
      local beside = up..'/'..last
      if call('GETRANGE', P..'n:'..beside, 0, 0) == 'B' then return {7, beside} end
    end
  end
end
""",
    "plant": """
local function plant(name)
  local kind, at = 'd:', name
  repeat
    local up, last = split(at)
    if call('SADD', P..kind..up, last) == 0 then return end
    kind, at = 'f:', up
  until at == ''
end
""",
    "uproot": """
local function uproot(name)
  local kind, at = 'd:', name
  repeat
    local up, last = split(at)
    call('SREM', P..kind..up, last)
    if call('EXISTS', P..'d:'..up, P..'f:'..up) > 0 then return end
    kind, at = 'f:', up
  until at == ''
end
""",
    "tell": "local function tell(name) call('PUBLISH', P..'!'..name, '') end\n",
    "drop": """
local function drop(name)
  call('DEL', P..'n:'..name)
  uproot(name)
  tell(name)
end
""",
    "put": """
local function put(name, data)
  if call('EXISTS', P..'n:'..name) == 0 then
    local wrong = no_place(name)
    if wrong then return wrong end
    plant(name)
  end
  call('SET', P..'n:'..name, data)
  tell(name)
end
""",
    "extend": """
local function extend(name, head, chunk)
  local k = P..'n:'..name
  if call('EXISTS', k) == 0 then
    plant(name)
    call('SET', k, head)
  end
  local size = call('APPEND', k, chunk)
  tell(name)
  return size
end
""",
}
"""Lua functions. A script gets those that it uses."""

# -- cells -------------------------------------------------------------------------------------------

WRITE = _script("""  -- name, data, the lock that the caller holds, whether a bucket is spared
return busy('n:'..ARGV[3], ARGV[5]) or (ARGV[6] == '1' and no_bucket(ARGV[3])) or put(ARGV[3], ARGV[4]) or {0}
""")

CREATE = _script("""  -- name, data, whether a bucket is spared
local out = busy('n:'..ARGV[3], '')
if out then return out end
if call('EXISTS', P..'n:'..ARGV[3]) == 1 then return {0, 0} end
out = ARGV[5] == '1' and no_bucket(ARGV[3])
if out then return out end
return put(ARGV[3], ARGV[4]) or {0, 1}
""")

REMOVE = _script("""  -- name, the lock that the caller holds, the bytes that must stand there ('' for any)
local out = busy('n:'..ARGV[3], ARGV[4])
if out then return out end
local old = call('GET', P..'n:'..ARGV[3])
if not old or (ARGV[5] ~= '' and old ~= ARGV[5]) then return {0, 0} end
drop(ARGV[3])
return {0, 1, old}
""")

MOVE = _script("""  -- old, new, the caller's lock on old, the bytes that must stand there ('' for any)
local out = busy('n:'..ARGV[3], ARGV[5]) or busy('n:'..ARGV[4], '')
if out then return out end
local old = call('GET', P..'n:'..ARGV[3])
if not old or (ARGV[6] ~= '' and old ~= ARGV[6]) or call('EXISTS', P..'n:'..ARGV[4]) == 1 then return {0, 0} end
out = no_place(ARGV[4])
if out then return out end
drop(ARGV[3])
put(ARGV[4], old)
return {0, 1}
""")

PLACE = _script("""  -- name: whether a value could stand there
if call('EXISTS', P..'n:'..ARGV[3]) == 1 then return {0} end
return no_place(ARGV[3]) or {0}
""", changes=False)  # fmt: skip

FOLDER = _script("""  -- folder
return {0, call('SMEMBERS', P..'d:'..ARGV[3]), call('SMEMBERS', P..'f:'..ARGV[3])}
""", changes=False)  # fmt: skip

# -- buckets -----------------------------------------------------------------------------------------

TAILS = _script("""  -- for each bucket: name, identity, end
local reply = {0}
for i = 3, #ARGV, 3 do
  local k = P..'n:'..ARGV[i]
  local head = call('GETRANGE', k, 0, 9)
  local kind, size, data = 0, 0, ''
  if head ~= '' then
    size = call('STRLEN', k)
    local at = tonumber(ARGV[i + 2])
    if string.sub(head, 1, 1) == 'B' and string.sub(head, 2, 9) == ARGV[i + 1] and at <= size then
      kind = 1
      if at < size then data = call('GETRANGE', k, at, -1) end
    else
      kind, data = 2, call('GET', k)
    end
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = kind, head, size, data
end
return reply
""", changes=False)  # fmt: skip

APPEND = _script("""  -- what the caller holds, then for each bucket: name, head of a new one, chunk
for i = 4, #ARGV, 3 do
  local out = busy('n:'..ARGV[i], ARGV[3])
  if out then return out end
  local kind = call('GETRANGE', P..'n:'..ARGV[i], 0, 0)
  if kind == 'C' then return {0, 0} end
  out = kind == '' and no_place(ARGV[i])
  if out then return out end
end
local size = 1
for i = 4, #ARGV, 3 do size = extend(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
return {0, size}
""")

# -- holds -------------------------------------------------------------------------------------------

HOLD = _script("""  -- what, by whom, the hold, the key to read then ('' for none)
if call('EXISTS', P..'s:'..ARGV[4]) == 0 then return {3} end
local out = busy(ARGV[3], '')
if out then return out end
local time = call('TIME')
local last = tonumber(call('GET', P..'t') or 0)
local token = math.max(last + 1, time[1] * 1000000 + time[2])
local text = string.format('%.0f', token)
call('SET', P..'t', text)
call('SET', P..'h:'..ARGV[3], ARGV[5])
return {0, token, ARGV[6] ~= '' and call('GET', P..ARGV[6])}
""")

RELEASE = _script("""  -- what, the hold
if call('GET', P..'h:'..ARGV[3]) ~= ARGV[4] then return {0, 0} end
call('DEL', P..'h:'..ARGV[3])
tell('hold/'..ARGV[3])
return {0, 1}
""")

HOLDER = _script("""  -- what
local h = call('GET', P..'h:'..ARGV[3])
local session = h and string.match(h, '^%d+')
if session and call('EXISTS', P..'s:'..session) == 1 then return {0, session} end
return {0, '0'}
""", changes=False)  # fmt: skip

SWAP = _script("""  -- register, how what must stand there begins, data; answers whether it did, and else what does
local k = P..'r:'..ARGV[3]
if call('GETRANGE', k, 0, 8) ~= ARGV[4] then return {0, 0, call('GET', k)} end
call('SET', k, ARGV[5])
tell(ARGV[3])
return {0, 1}
""")

PUT_HELD = _script("""  -- what, the hold, name, data, whether a bucket is spared: write, and let go
if call('GET', P..'h:'..ARGV[3]) ~= ARGV[4] then return {4} end
local wrong = (ARGV[7] == '1' and no_bucket(ARGV[5])) or put(ARGV[5], ARGV[6])
if wrong then return wrong end
call('DEL', P..'h:'..ARGV[3])
tell('hold/'..ARGV[3])
return {0}
""")

# -- owners ------------------------------------------------------------------------------------------

ARRIVE = _script("""  -- number, who, lease in milliseconds
call('SET', P..'o:'..ARGV[3], ARGV[4], 'PX', ARGV[5])
call('SET', P..'s:'..ARGV[3], ARGV[4], 'PX', ARGV[5])
call('SET', P..'w:'..ARGV[3], ARGV[4], 'EX', 86400)
return {0}
""")

RENEW = _script("""  -- lease in milliseconds, then numbers; answers which of them are nobody any more
local gone = {}
for i = 4, #ARGV do
  call('PEXPIRE', P..'o:'..ARGV[i], ARGV[3])
  call('EXPIRE', P..'w:'..ARGV[i], 86400)
  if call('PEXPIRE', P..'s:'..ARGV[i], ARGV[3]) == 0 then gone[#gone + 1] = ARGV[i] end
end
return {0, gone}
""")

LEAVE = _script("""  -- number, whether what it holds is free too
call('DEL', P..'o:'..ARGV[3])
if ARGV[4] == '1' then call('DEL', P..'s:'..ARGV[3]) end
tell('')
return {0}
""")

# -- logs --------------------------------------------------------------------------------------------

FRESH = b"0 0 0 0 0.0"
"""The mark of a record that waits as it was appended: such marks are not stored."""
_LOG = """
local name, mine = ARGV[3], ARGV[4]
local out = busy('l:'..name, mine)
if out then return out end
"""
_MARK = f"""
local function mark_of(at) return call('HGET', lc, at) or call('HGET', lm, at) or '{FRESH.decode()}' end
"""

LOG_APPEND = _script(
    _LOG
    + """  -- mark ('' for a fresh one), the line, payloads
if call('HEXISTS', l, 's') == 1 then return {5} end
local line = P..ARGV[6]..name
local first = call('HINCRBY', l, 'a', #ARGV - 6) - (#ARGV - 6)
for from = 7, #ARGV, 1000 do
  local payloads, places, marks = {}, {}, {}
  for i = from, math.min(from + 999, #ARGV) do
    local at, n = first + i - 7, 2 * (i - from)
    payloads[n + 1], payloads[n + 2] = at, ARGV[i]
    places[n + 1], places[n + 2] = at, at
    marks[n + 1], marks[n + 2] = at, ARGV[5]
  end
  call('HSET', lp, unpack(payloads))
  call('ZADD', line, unpack(places))
  if ARGV[5] ~= '' then call('HSET', lm, unpack(marks)) end
end
if first == 0 then call('SADD', P..'logs', name) end
tell(name)
return {0, first}
"""
)

LOG_TAKE = _script(
    _LOG
    + """  -- limit, the end of the mark
local numbers = call('HMGET', l, 'n', 's')
local reply = {0, numbers[1] or '0', numbers[2] and 1 or 0}
local got = call('ZPOPMIN', lw, ARGV[5])
for from = 1, #got, 1000 do
  local places, claims, returned = {}, {}, {}
  for i = from, math.min(from + 999, #got), 2 do places[#places + 1] = got[i] end
  local marks, payloads = call('HMGET', lm, unpack(places)), call('HMGET', lp, unpack(places))
  for n, at in ipairs(places) do
    local attempt = 1
    if marks[n] then
      attempt = tonumber(string.match(marks[n], '^%d+ (%d+)')) + 1
      returned[#returned + 1] = at
    end
    local mark, last = '1 '..attempt..' '..ARGV[6], #reply
    reply[last + 1], reply[last + 2], reply[last + 3] = at, mark, payloads[n]
    claims[2 * n - 1], claims[2 * n] = at, mark
  end
  call('HSET', lc, unpack(claims))
  if #returned > 0 then call('HDEL', lm, unpack(returned)) end
end
return reply, #got == 0
"""
)

_SETTLE = (
    f"""
local FRESH = '{FRESH.decode()}'
local changed, ended, made = false, false, {{}}
local function is_held(at, held, state)
  if state == '1' then return call('HGET', lc, at) == held end
  local mark = call('HGET', lm, at)
  if held ~= FRESH then return mark == held end
  return not mark and call('ZSCORE', lw, at)
end
"""
    + """
local function settle(at, held, new, bucket, head, chunk, sound)
  local before, state, size = string.sub(held, 1, 1), string.sub(new, 1, 1), 1
  if not is_held(at, held, before) then return 0 end
  ANSWER
  if held == new then return size end
  if before == '1' then call('HDEL', lc, at)
  elseif held ~= FRESH then call('HDEL', lm, at) end
  if state ~= before then
    if before == '0' then call('ZREM', lw, at) elseif before == '4' then call('ZREM', ld, at) end
    if state == '0' then
      local front = tonumber(string.match(new, '^. (%d+)')) < tonumber(string.match(held, '^. (%d+)'))
      local step = call('HINCRBY', l, front and 'u' or 'r', 1)
      call('ZADD', lw, front and -1e12 - step or -1e12 + step, at)
    elseif state == '4' then call('ZADD', ld, at, at) end
  end
  if state == '2' or state == '3' then
    call('HDEL', lp, at)
    ended = true
  else
    if state == '1' then call('HSET', lc, at, new) elseif new ~= FRESH then call('HSET', lm, at, new) end
    changed = changed or state ~= '1'
  end
  return size
end
local reply = {0}
for i = 5, #ARGV, STEP do
  reply[#reply + 1] = settle(unpack(ARGV, i, i + STEP - 1))
  if out then return out end
end
if ended then tell(name..'/final') end
if changed then tell(name) end
return reply
"""
)
_ANSWER = """
  if bucket ~= '' then
    local kind = call('GETRANGE', P..'n:'..bucket, 0, 0)
    if kind == 'C' then return -1 end
    if kind == 'B' and sound == '0' and not made[bucket] then return -2 end
    out = kind == '' and no_place(bucket)
    if out then
      out[3] = bucket
      return 0
    end
    made[bucket] = true
    size = extend(bucket, head, chunk)
  end
"""

LOG_SETTLE = _script(
    _LOG
    + """  -- for each change: position, held, new
"""
    + _SETTLE.replace("ANSWER", "").replace("STEP", "3")
)

LOG_ANSWER = _script(
    _LOG
    + """  -- for each change: position, held, new, bucket ('' for none), head of a new one, chunk, is an old one sound
for i = 8, #ARGV, 7 do
  out = ARGV[i] ~= '' and busy('n:'..ARGV[i], '')
  if out then return out end
end
"""
    + _SETTLE.replace("ANSWER", _ANSWER).replace("STEP", "7")
)

LOG_BEGIN = _script(
    _LOG
    + """  -- where, how many records as if there had been: 'o' positions are nobody's
if call('HEXISTS', l, 'a') == 1 then return {0, 0} end
call('HSET', l, 'a', ARGV[5], 'o', ARGV[5] - ARGV[6])
call('SADD', P..'logs', name)
return {0, 1}
"""
)

LOG_SET = _script(
    _LOG
    + """  -- field, value ('' for none)
if ARGV[6] == '' then call('HDEL', l, ARGV[5]) else call('HSET', l, ARGV[5], ARGV[6]) end
if ARGV[5] == 's' then tell(name) tell(name..'/final') end
return {0}
"""
)

_LOOK = """
local reply = {0}
local function add(at, mark, payload)
  local last = #reply
  reply[last + 1], reply[last + 2], reply[last + 3] = at, mark, payload
end
"""

LOG_READ = _script(
    _LOOK
    + _MARK
    + """  -- name, position
local payload = call('HGET', lp, ARGV[4])
if payload then add(ARGV[4], mark_of(ARGV[4]), payload) end
return reply
""",
    changes=False,
)

LOG_CLAIMS = _script(
    _LOOK
    + """  -- name
local claims = call('HGETALL', lc)
for i = 1, #claims, 2 do add(claims[i], claims[i + 1], call('HGET', lp, claims[i])) end
return reply
""",
    changes=False,
)

LOG_DELAYED = _script(
    _LOOK
    + """  -- name
for _, at in ipairs(call('ZRANGE', P..'ld:'..ARGV[3], 0, -1)) do add(at, call('HGET', lm, at), '') end
return reply
""",
    changes=False,
)

LOG_PART = _script(
    _LOOK
    + _MARK
    + """  -- name, which line, behind which place in it, how many; answers behind which place to go on
local got = call('ZRANGEBYSCORE', P..ARGV[4]..ARGV[3], '('..ARGV[5], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[6])
reply[2] = got[#got] or ARGV[5]
for i = 1, #got, 2 do add(got[i], mark_of(got[i]), call('HGET', lp, got[i])) end
return reply
""",
    changes=False,
)

LOG_COUNTS = _script("""  -- name
local found = call('HMGET', P..'l:'..ARGV[3], 'a', 's', 'n', 'o')
return {0, call('ZCARD', P..'lw:'..ARGV[3]), call('HLEN', P..'lp:'..ARGV[3]), found[1] or '0', found[2] and 1 or 0,
  found[3] or '0', found[4] or '0'}
""", changes=False)  # fmt: skip

"""The verbs as the server runs them: each script is one instant, and each answer begins with how it ended.

KEYS[1] is where a script that changes something notes its answer, so that a repeated request (its answer was lost)
gets that answer and does nothing twice. ARGV[1] is what all keys begin with, ARGV[2] the number of the request.

Keys, behind the prefix: ``n:`` what stands at a name, ``d:`` and ``f:`` the names and the folders in a folder, ``h:``
who keeps others out of what, ``o:`` owners, ``s:`` who may hold something, ``w:`` who an owner was, for a day longer,
``r:`` registers, ``q:`` last answers, ``t`` the last token; of a log ``l:`` its numbers, ``lp:`` payloads, ``lm:``
marks, ``lw:`` ``lc:`` ``ld:`` which records are waiting, claimed, delayed. ``!`` begins the channels that say that a
name has changed.
"""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

OK, BUSY, NO_PLACE, NOBODY, LOST, SEALED = range(6)
"""How a script ended: done; somebody keeps us out; a folder or a value is in the way; who asks is not alive any more;
what was held is not ours any more; the log takes no more records."""


class Script(NamedTuple):
    source: bytes
    sha: bytes
    changes: bool


def _script(body: str, *, changes: bool = True) -> Script:
    text = _HEAD + (_NOTED if changes else _PLAIN).replace("BODY", body)
    source = text.encode()
    return Script(source, sha1(source, usedforsecurity=False).hexdigest().encode(), changes)


_NOTED = """
local kept = call('GET', KEYS[1])
if kept and string.sub(kept, 1, #ARGV[2] + 1) == ARGV[2]..' ' then
  return cmsgpack.unpack(string.sub(kept, #ARGV[2] + 2))
end
local function body() BODY end
local reply = body()
if reply[1] ~= 1 then call('SET', KEYS[1], ARGV[2]..' '..cmsgpack.pack(reply), 'EX', 900) end
return reply
"""
_PLAIN = "BODY"

_HEAD = """
local P, call = ARGV[1], redis.call
local function split(at)
  local up, last = string.match(at, '^(.*)/([^/]*)$')
  if up then return up, last end
  return '', at
end
local function busy(key, mine)
  local h = call('GET', P..'h:'..key)
  if h == mine then return nil end
  if mine ~= '' then return {4} end
  if not h then return nil end
  local session = string.match(h, '^%d+')
  if call('EXISTS', P..'s:'..session) == 0 then return nil end
  return {1, session}
end
local function no_place(name)
  if call('EXISTS', P..'d:'..name, P..'f:'..name) > 0 then return {2, 'folder'} end
  local at = split(name)
  while at ~= '' do
    if call('EXISTS', P..'n:'..at) == 1 then return {2, 'below'} end
    at = split(at)
  end
end
local function plant(name)
  local kind, at = 'd:', name
  repeat
    local up, last = split(at)
    if call('SADD', P..kind..up, last) == 0 then return end
    kind, at = 'f:', up
  until at == ''
end
local function uproot(name)
  local kind, at = 'd:', name
  repeat
    local up, last = split(at)
    call('SREM', P..kind..up, last)
    if call('EXISTS', P..'d:'..up, P..'f:'..up) > 0 then return end
    kind, at = 'f:', up
  until at == ''
end
local function tell(name) call('PUBLISH', P..'!'..name, '') end
local function drop(name)
  call('DEL', P..'n:'..name)
  uproot(name)
  tell(name)
end
local function put(name, data)
  if call('EXISTS', P..'n:'..name) == 0 then
    local wrong = no_place(name)
    if wrong then return wrong end
    plant(name)
  end
  call('SET', P..'n:'..name, data)
  tell(name)
end
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
"""

# -- cells -------------------------------------------------------------------------------------------

WRITE = _script("""  -- name, data, what the caller holds
return busy('n:'..ARGV[3], ARGV[5]) or put(ARGV[3], ARGV[4]) or {0}
""")

CREATE = _script("""  -- name, data
local out = busy('n:'..ARGV[3], '')
if out then return out end
if call('EXISTS', P..'n:'..ARGV[3]) == 1 then return {0, 0} end
return put(ARGV[3], ARGV[4]) or {0, 1}
""")

REMOVE = _script("""  -- name, what the caller holds, the bytes that must stand there ('' for any)
local out = busy('n:'..ARGV[3], ARGV[4])
if out then return out end
local old = call('GET', P..'n:'..ARGV[3])
if not old or (ARGV[5] ~= '' and old ~= ARGV[5]) then return {0, 0} end
drop(ARGV[3])
return {0, 1, old}
""")

MOVE = _script("""  -- old, new, what the caller holds of old, the bytes that must stand there ('' for any)
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

PUT_HELD = _script("""  -- what, the hold, name, data: write, and let go
if call('GET', P..'h:'..ARGV[3]) ~= ARGV[4] then return {4} end
local wrong = put(ARGV[5], ARGV[6])
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

_LOG = """
local name, mine = ARGV[3], ARGV[4]
local L = function(kind) return P..kind..name end
local out = busy('l:'..name, mine)
if out then return out end
"""

LOG_APPEND = _script(
    _LOG
    + """  -- mark, whether it waits, payloads
if call('HGET', L'l:', 's') then return {5} end
local first = tonumber(call('HGET', L'l:', 'a') or 0)
local at, line = first, ARGV[6] == '1' and L'lw:' or L'ld:'
for i = 7, #ARGV do
  call('HSET', L'lp:', at, ARGV[i])
  call('HSET', L'lm:', at, ARGV[5])
  call('ZADD', line, at, at)
  at = at + 1
end
call('HSET', L'l:', 'a', at)
if first == 0 then call('SADD', P..'logs', name) end
tell(name)
return {0, first}
"""
)

LOG_TAKE = _script(
    _LOG
    + """  -- limit, the end of the mark
local reply = {0, call('HGET', L'l:', 'n') or '0', call('HEXISTS', L'l:', 's')}
local got = call('ZPOPMIN', L'lw:', ARGV[5])
for i = 1, #got, 2 do
  local at = got[i]
  local attempt = tonumber(string.match(call('HGET', L'lm:', at), '^%d+ (%d+)')) + 1
  local mark = string.format('1 %d %s', attempt, ARGV[6])
  call('HSET', L'lm:', at, mark)
  call('ZADD', L'lc:', at, at)
  reply[#reply + 1] = at
  reply[#reply + 1] = mark
  reply[#reply + 1] = call('HGET', L'lp:', at)
end
return reply
"""
)

LOG_SETTLE = _script(
    _LOG
    + """  -- for each change: position, held, new, bucket ('' for none), head of a new one, chunk, is an old one sound
for i = 8, #ARGV, 7 do
  out = ARGV[i] ~= '' and busy('n:'..ARGV[i], '')
  if out then return out end
end
local changed, ended, made = false, false, {}
local function settle(at, held, new, bucket, head, chunk, sound)
  if call('HGET', L'lm:', at) ~= held then return 0 end
  local size = 1
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
  if held == new then return size end
  local old_state, old_attempt = string.match(held, '^(%d) (%d+)')
  local state, attempt = string.match(new, '^(%d) (%d+)')
  if state ~= old_state then
    call('ZREM', ({['0'] = L'lw:', ['1'] = L'lc:', ['4'] = L'ld:'})[old_state], at)
    if state == '0' then
      local front = tonumber(attempt) < tonumber(old_attempt)
      local step = call('HINCRBY', L'l:', front and 'u' or 'r', 1)
      call('ZADD', L'lw:', front and -1e12 - step or -1e12 + step, at)
    elseif state == '1' then call('ZADD', L'lc:', at, at)
    elseif state == '4' then call('ZADD', L'ld:', at, at) end
  end
  if state == '2' or state == '3' then
    call('HDEL', L'lp:', at)
    call('HDEL', L'lm:', at)
    call('HINCRBY', L'l:', 'f', 1)
    ended = true
  else
    call('HSET', L'lm:', at, new)
    changed = changed or state ~= '1'
  end
  return size
end
local reply = {0}
for i = 5, #ARGV, 7 do
  reply[#reply + 1] = settle(unpack(ARGV, i, i + 6))
  if out then return out end
end
if ended then tell(name..'/final') end
if changed then tell(name) end
return reply
"""
)

LOG_BEGIN = _script(
    _LOG
    + """  -- where, how many records as if there had been: 'o' positions are nobody's
if call('HEXISTS', L'l:', 'a') == 1 then return {0, 0} end
call('HSET', L'l:', 'a', ARGV[5], 'f', ARGV[6], 'o', ARGV[5] - ARGV[6])
call('SADD', P..'logs', name)
return {0, 1}
"""
)

LOG_SET = _script(
    _LOG
    + """  -- field, value ('' for none)
if ARGV[6] == '' then call('HDEL', L'l:', ARGV[5]) else call('HSET', L'l:', ARGV[5], ARGV[6]) end
if ARGV[5] == 's' then tell(name) tell(name..'/final') end
return {0}
"""
)

LOG_READ = _script("""  -- name, positions
local reply = {0}
for i = 4, #ARGV do
  local mark = call('HGET', P..'lm:'..ARGV[3], ARGV[i])
  if mark then
    reply[#reply + 1] = ARGV[i]
    reply[#reply + 1] = mark
    reply[#reply + 1] = call('HGET', P..'lp:'..ARGV[3], ARGV[i])
  end
end
return reply
""", changes=False)  # fmt: skip

LOG_LINE = _script("""  -- name, which line, whether with payloads
local reply = {0}
for _, at in ipairs(call('ZRANGE', P..ARGV[4]..ARGV[3], 0, -1)) do
  reply[#reply + 1] = at
  reply[#reply + 1] = call('HGET', P..'lm:'..ARGV[3], at)
  reply[#reply + 1] = ARGV[5] == '1' and call('HGET', P..'lp:'..ARGV[3], at) or ''
end
return reply
""", changes=False)  # fmt: skip

LOG_PART = _script("""  -- name, which line, behind which place in it, how many; answers behind which place to go on
local reply = {0, ARGV[5]}
local got = call('ZRANGEBYSCORE', P..ARGV[4]..ARGV[3], '('..ARGV[5], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[6])
for i = 1, #got, 2 do
  reply[2] = got[i + 1]
  reply[#reply + 1] = got[i]
  reply[#reply + 1] = call('HGET', P..'lm:'..ARGV[3], got[i])
  reply[#reply + 1] = call('HGET', P..'lp:'..ARGV[3], got[i])
end
return reply
""", changes=False)  # fmt: skip

LOG_COUNTS = _script("""  -- name
local found = call('HMGET', P..'l:'..ARGV[3], 'a', 'f', 's', 'n', 'o')
return {0, call('ZCARD', P..'lw:'..ARGV[3]), found[1] or '0', found[2] or '0', found[3] and 1 or 0, found[4] or '0',
  found[5] or '0'}
""", changes=False)  # fmt: skip

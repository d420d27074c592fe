"""What is done inside the Redis server, as Lua. Constant texts: whatever varies travels in KEYS and ARGV.

Every script takes any number of keys of one kind with a fixed number of arguments per key after the first argument,
and answers `{server time in ms, answer, answer, ...}`, so that one call serves many users. A key whose handling fails
(out of memory, a key of another type) answers `{"error", text}` and leaves its neighbours alone.

Two traps shape the texts. `conn_id` has 63 bits and a Lua number has 53: it is compared as decimal digits, and values
are never decoded and encoded again. And a server that was stopped executes what still lies in its sockets when it goes
on: what writes carries the server's time after which its sender has given it up, and does nothing then.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec


class Script(msgspec.Struct, frozen=True):
    """One script: its text, and the digest by which a server that has seen it knows it."""

    text: str
    digest: str
    width: int
    """Arguments per key."""


def _script(body: str, width: int) -> Script:
    text = _HEAD + body + _LOOP.replace("WIDTH", str(width))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), width)


_HEAD: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lifetime = tonumber(ARGV[1])
local expires_at = string.format('%.0f', math.floor((now + lifetime) / 1000))

local function read(value)
  local conn = string.match(value, '"conn_id":(%d+),')
  local boot = string.match(value, '"boot_id":"([^"]*)"')
  local platform = string.match(value, '"platform":"([^"]*)"')
  local expires = string.match(value, '"expires_at":(%d+)}$')
  if conn and boot and platform and expires then
    return {conn = conn, boot = boot, platform = platform, live = tonumber(expires) * 1000 > now}
  end
  return {live = false}
end

local function older(left, right)
  if #left ~= #right then return #left < #right end
  return left < right
end

local function owned(key, device, conn, boot)
  local value = redis.call('HGET', key, device)
  local entry = value and read(value)
  if entry and entry.conn == conn and entry.boot == boot then return value, entry.live end
end
"""

_LOOP: Final = """
local answers = {now}
for i, key in ipairs(KEYS) do
  local ok, answer = pcall(act, key, 1 + (i - 1) * WIDTH)
  if not ok then
    answer = {'error', type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
"""

CLAIM: Final = _script(
    """
local function act(key, at)
  local deadline, device, platform = tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  local conn, boot, head, policy = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  if now > deadline then return {'late'} end
  local held
  if policy == 'multi_device' then
    -- only the own device can be displaced; a few others are looked at so that the expired ones are swept in time
    local own, count = redis.call('HGET', key, device), redis.call('HLEN', key)
    held = count > (own and 1 or 0) and redis.call('HRANDFIELD', key, 4, 'WITHVALUES') or {}
    for i = #held - 1, 1, -2 do
      if held[i] == device then table.remove(held, i + 1) table.remove(held, i) end
    end
    if own then held[#held + 1] = device held[#held + 1] = own end
  else
    held = redis.call('HGETALL', key)
  end
  local entered, newer, gone = {'entered'}, {'newer'}, {}
  for i = 1, #held, 2 do
    local field, value = held[i], held[i + 1]
    local entry = read(value)
    local rival = field == device or policy == 'single_device'
      or (policy == 'single_per_platform' and entry.platform == platform)
    if not entry.live then
      gone[#gone + 1] = field
    elseif rival and not (entry.conn == conn and entry.boot == boot) then
      if older(entry.conn, conn) then
        entered[#entered + 1] = value
        gone[#gone + 1] = field
      else
        newer[#newer + 1] = value
      end
    end
  end
  if #newer > 1 then return newer end
  redis.call('HSET', key, device, head .. expires_at .. '}')
  for _, field in ipairs(gone) do
    if field ~= device then redis.call('HDEL', key, field) end
  end
  redis.call('PEXPIRE', key, lifetime)
  return entered
end
""",
    7,
)
"""Per key: deadline, device, platform, conn_id, boot_id, the value up to its `expires_at`, policy. Answers
`{"entered", displaced value...}`, `{"newer", value...}` of those that stand in the way, or `{"late"}`."""

RENEW: Final = _script(
    """
local function act(key, at)
  if now > tonumber(ARGV[at + 1]) then return {'late'} end
  local device = ARGV[at + 2]
  local value, live = owned(key, device, ARGV[at + 3], ARGV[at + 4])
  if not live then return {'lost'} end
  redis.call('HSET', key, device, (string.gsub(value, '%d+}$', expires_at .. '}')))
  redis.call('PEXPIRE', key, lifetime)
  return {'renewed'}
end
""",
    4,
)
"""Per key: deadline, device, conn_id, boot_id. Answers `{"renewed"}`, `{"lost"}` or `{"late"}`."""

RELEASE: Final = _script(
    """
local function act(key, at)
  if now > tonumber(ARGV[at + 1]) then return {'late'} end
  local device = ARGV[at + 2]
  local value, live = owned(key, device, ARGV[at + 3], ARGV[at + 4])
  if value then redis.call('HDEL', key, device) end
  return {live and 'released' or 'lost'}
end
""",
    4,
)
"""Per key: deadline, device, conn_id, boot_id. Answers `{"released"}`, `{"lost"}` or `{"late"}`."""

LOOKUP: Final = _script(
    """
local function act(key, at)
  local found = {'found'}
  for _, value in ipairs(redis.call('HVALS', key)) do
    if read(value).live then found[#found + 1] = value end
  end
  return found
end
""",
    0,
)
"""Nothing per key. Answers `{"found", value...}` of what has not expired."""

WITHDRAW: Final = _script(
    """
local function act(key, at)
  local value = redis.call('GET', key)
  if value and string.find(value, '"boot_id":"' .. ARGV[at + 1] .. '"', 1, true) then redis.call('DEL', key) end
  return {'withdrawn'}
end
""",
    1,
)
"""Per node key: boot_id. The key goes if it is still that start's own."""

READ: Final = _script(
    """
local function act(key, at)
  local value = redis.call('GET', key)
  return value and {'found', value} or {'none'}
end
""",
    0,
)
"""Nothing per key. Answers `{"found", value}` or `{"none"}`."""

KEEP: Final = _script(
    """
local function act(key, at)
  if now > tonumber(ARGV[at + 1]) then return {'late'} end
  redis.call('SET', key, ARGV[at + 2], 'PX', lifetime)
  return {'kept'}
end
""",
    2,
)
"""Per key: deadline, value. Answers `{"kept"}` or `{"late"}`."""

DROP: Final = _script(
    """
local function act(key, at)
  if now > tonumber(ARGV[at + 1]) then return {'late'} end
  redis.call('DEL', key)
  return {'dropped'}
end
""",
    1,
)
"""Per key: deadline. Answers `{"dropped"}` or `{"late"}`."""

FIRST: Final = _script(
    """
local function act(key, at)
  if now > tonumber(ARGV[at + 1]) then return {'late'} end
  return {redis.call('SET', key, '0', 'NX', 'PX', lifetime) and 'first' or 'seen'}
end
""",
    1,
)
"""Per key: deadline. Answers `{"first"}`, `{"seen"}` or `{"late"}`."""

ENROL: Final = _script(
    """
local function act(key, at)
  if now > tonumber(ARGV[at + 1]) then return {'late'} end
  redis.call('SADD', key, ARGV[at + 2])
  redis.call('PEXPIRE', key, lifetime)
  return {'kept'}
end
""",
    2,
)
"""Per set: deadline, member. Answers `{"kept"}` or `{"late"}`."""

LEAVE: Final = _script(
    """
local function act(key, at)
  if now > tonumber(ARGV[at + 1]) then return {'late'} end
  redis.call('SREM', key, ARGV[at + 2])
  return {'dropped'}
end
""",
    2,
)
"""Per set: deadline, member. Answers `{"dropped"}` or `{"late"}`."""

LIST: Final = _script(
    """
local function act(key, at)
  local found = redis.call('SMEMBERS', key)
  table.insert(found, 1, 'found')
  return found
end
""",
    0,
)
"""Nothing per set. Answers `{"found", member...}`."""

EVERY: Final = (CLAIM, RENEW, RELEASE, LOOKUP, WITHDRAW, READ, KEEP, DROP, FIRST, ENROL, LEAVE, LIST)

"""What the Redis store does inside the server, as Lua: one script per batch, which is one transaction over every
timeline that the batch concerns. Constant texts; keys and layout are told in docs/logic.md.

Every script takes the server's time (ms) after which its sender has given it up, the keys' prefix, and its own
arguments, lists of them packed as MessagePack. It answers a MessagePack list of the server's time and its result, or
of the time alone when it came late and did nothing.

A script that fails is not rolled back. So each first reads all it needs, whereby a key of a wrong kind shows, and
writes only then; the server refuses for its own reasons (no memory, a replica) before the first write or not at all.

A Lua number has 53 bits: users and groups are strings here. Places and messages are counted from 1 and are numbers.
"""

from __future__ import annotations

import hashlib
from typing import Final

from gateway.backends.redis_scripts import Script


def script(body: str) -> Script:
    text = _HEAD + body
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), 0)


_HEAD: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if now > tonumber(ARGV[1]) then return cmsgpack.pack({now}) end
local prefix = ARGV[2]

local function whole(number) return string.format('%.0f', number) end

local function begins(user) return tonumber(redis.call('HGET', prefix .. 'begins', user) or '0') end

local messages = {}
local function message(id)
  local found = messages[id]
  if not found then
    local text = redis.call('GETRANGE', prefix .. 'message:' .. id, 0, 255)
    local status, sender, msg_id, seq, at = string.match(text,
      '^{"status":(%d),"sender":(%d+),"msg_id":"([^"]*)","server_seq":(%d+),"stored_at":(%d+),')
    if not status then error('message ' .. id .. ' is not there', 0) end
    found = {id = id, status = tonumber(status), sender = sender, msg_id = msg_id, seq = tonumber(seq),
      at = tonumber(at)}
    messages[id] = found
  end
  return found
end
"""

WRITE: Final = script(
    """
local stored_at, writes = ARGV[3], cmsgpack.unpack(ARGV[4])
local room, window = tonumber(ARGV[5]), tonumber(ARGV[6])

-- Part one reads, and works out what will be.

local last = tonumber(redis.call('GET', prefix .. 'last') or '0')
local heads, bases, added, groups, known, fresh = {}, {}, {}, {}, {}, {}

local function head(user)
  local length = heads[user]
  if not length then
    bases[user] = begins(user)
    length = bases[user] + redis.call('LLEN', prefix .. 'timeline:' .. user)
    heads[user], added[user] = length, {}
  end
  return length
end

local function enter(user, id)
  local length, list = head(user), added[user]
  list[#list + 1] = id
  return length + #list
end

local function members(group)
  local found = groups[group]
  if not found then
    found = {list = redis.call('SMEMBERS', prefix .. 'members:' .. group), set = {}}
    for _, user in ipairs(found.list) do found.set[user] = true end
    groups[group] = found
  end
  return found
end

local function stored_before(sender, msg_id)
  local mine = known[sender]
  if not mine then mine = {} known[sender] = mine end
  if mine[msg_id] == nil then
    local id = redis.call('HGET', prefix .. 'sent:' .. sender, msg_id)
    mine[msg_id] = id and message(id)
  end
  return mine[msg_id]
end

local function place(write, recipients)
  local sender, msg_id = write[2], write[3]
  last = last + 1
  local id = whole(last)
  local seq, others = enter(sender, id), {}
  for _, user in ipairs(recipients) do
    if user ~= sender then
      others[#others + 1] = user
      others[#others + 1] = enter(user, id)
    end
  end
  local made = {id = id, status = 0, sender = sender, msg_id = msg_id, seq = seq, at = tonumber(stored_at),
    rest = write[6], refs = 1 + #others / 2}
  messages[id], known[sender][msg_id] = made, made
  fresh[#fresh + 1] = made
  return {'posted', seq, made.at, others}
end

local outcomes, cost, searched = {}, 0, {}
for i, write in ipairs(writes) do
  local outcome = {'none'}
  if write[1] == 'post' then
    local before = stored_before(write[2], write[3])
    local group = write[5] ~= '0' and members(write[5])
    if before then
      cost = cost + 1
      outcome = {'repeated', before.seq, before.at}
    elseif group and not group.set[write[2]] then
      cost = cost + 1
      outcome = {'not member'}
    else
      local recipients = group and group.list or {write[4]}
      cost = cost + 3 + #recipients
      if cost > room and i > 1 then break end
      outcome = place(write, recipients)
    end
  elseif write[1] == 'receipt' and write[3] == 0 and not searched[write[2]] then
    searched[write[2]] = true
    cost = cost + window
  else
    cost = cost + 1
  end
  if cost > room and i > 1 and write[1] ~= 'post' then break end
  outcomes[i] = outcome
end

local places, newest, marks, raised, told = {}, {}, {}, {}, {}

local function entry(user, seq)
  local mine = places[user]
  if not mine then mine = {} places[user] = mine end
  if mine[seq] == nil then
    local length = head(user)
    local text = added[user][seq - length]
    if seq <= bases[user] then
      text = nil
    elseif seq <= length then
      text = redis.call('LINDEX', prefix .. 'timeline:' .. user, whole(seq - bases[user] - 1))
    end
    local id, status = string.match(text or '', '^(%d+):?(%d?)$')
    mine[seq] = id and {message = message(id), status = tonumber(status) or 0}
  end
  return mine[seq]
end

local function recent(user, msg_id)
  local mine = newest[user]
  if not mine then
    mine = {}
    local top = head(user) + #added[user]
    for seq = math.max(bases[user] + 1, top - window + 1), top do
      local found = entry(user, seq).message
      if found.sender ~= user then mine[found.msg_id] = seq end
    end
    newest[user] = mine
  end
  return mine[msg_id] or 0
end

local function mark(i, user, seq, msg_id, status)
  local found = seq > 0 and entry(user, seq)
  if not found then return end
  local about = found.message
  if (msg_id ~= '' and msg_id ~= about.msg_id) or about.sender == user or status <= found.status then return end
  found.status = status
  local text = about.id .. ':' .. status
  if seq > heads[user] then
    added[user][seq - heads[user]] = text
  else
    marks[#marks + 1] = {user, seq, text}
  end
  if status > about.status then
    if about.news then outcomes[about.news] = {'none'} end
    about.status, about.news = status, i
    raised[about.id] = about
    redis.call('ZCARD', prefix .. 'owed:' .. about.sender)
    outcomes[i] = {'raised', tonumber(about.id), about.sender, about.msg_id, about.seq, status}
  end
end

for i = 1, #outcomes do
  local write = writes[i]
  if write[1] == 'receipt' then
    local seq = write[3]
    if seq == 0 then seq = recent(write[2], write[4]) end
    mark(i, write[2], seq, write[4], write[5])
  end
end
for i = 1, #outcomes do
  local write = writes[i]
  local id = write[1] == 'told' and whole(write[2])
  if id and write[2] <= last and redis.call('EXISTS', prefix .. 'message:' .. id) == 1 then
    local about = message(id)
    redis.call('ZCARD', prefix .. 'owed:' .. about.sender)
    if about.status == write[3] then told[#told + 1] = about end
  end
end

-- Part two writes.

for _, made in ipairs(fresh) do
  redis.call('SET', prefix .. 'message:' .. made.id, '{"status":' .. made.status .. ',"sender":' .. made.sender
    .. ',"msg_id":"' .. made.msg_id .. '","server_seq":' .. whole(made.seq) .. ',"stored_at":' .. stored_at
    .. ',"refs":' .. whole(made.refs) .. made.rest)
  redis.call('HSET', prefix .. 'sent:' .. made.sender, made.msg_id, made.id)
  made.written = true
end
for user, list in pairs(added) do
  for start = 1, #list, 1000 do
    redis.call('RPUSH', prefix .. 'timeline:' .. user, unpack(list, start, math.min(start + 999, #list)))
  end
end
for _, each in ipairs(marks) do
  redis.call('LSET', prefix .. 'timeline:' .. each[1], whole(each[2] - bases[each[1]] - 1), each[3])
end
for id, about in pairs(raised) do
  if not about.written then redis.call('SETRANGE', prefix .. 'message:' .. id, 10, about.status) end
  redis.call('ZADD', prefix .. 'owed:' .. about.sender, id, id)
end
for _, about in ipairs(told) do redis.call('ZREM', prefix .. 'owed:' .. about.sender, about.id) end
if #fresh > 0 then redis.call('SET', prefix .. 'last', whole(last)) end
return cmsgpack.pack({now, outcomes})
"""
)
"""Arguments: stored_at, the writes, the cost at which to stop, how far back `msg_id` is looked for. A write is
`post, sender, msg_id, to_user, group_id, the value after stored_at`, `receipt, user, server_seq, msg_id, status` or
`told, message, status`. Answers what became of each write that was done: `posted, server_seq, stored_at, {user,
server_seq, ...}`, `repeated, server_seq, stored_at`, `not member`, `raised, message, sender, msg_id, server_seq,
status` or `none`."""

READ: Final = script(
    """
local answers = {}
for i, query in ipairs(cmsgpack.unpack(ARGV[3])) do
  local user, cursor, limit, room = query[1], query[2], query[3], query[4]
  local key = prefix .. 'timeline:' .. user
  local base = begins(user)
  local length, texts, used, more = base + redis.call('LLEN', key), {}, 0, false
  local from = math.max(cursor, base)
  if from < length then
    for at, place in ipairs(redis.call('LRANGE', key, whole(from - base), whole(from - base + limit))) do
      if at > limit or used > room then
        more = true
        break
      end
      local id = string.match(place, '^%d+')
      local text = id and redis.call('GET', prefix .. 'message:' .. id)
      if not text then error('message ' .. place .. ' is not there', 0) end
      texts[at] = text
      used = used + #text
    end
  end
  local owed = {}
  for at, id in ipairs(redis.call('ZRANGE', prefix .. 'owed:' .. user, 0, tonumber(ARGV[4]) - 1)) do
    local about = message(id)
    owed[at] = {tonumber(id), about.msg_id, about.seq, about.status}
  end
  answers[i] = {length, texts, more, owed, math.min(from, length)}
end
return cmsgpack.pack({now, answers})
"""
)
"""Arguments: the queries as `{user, cursor, limit, bytes}`, and the most receipts owed in one answer. Answers each with
`{the newest server_seq, {message, ...}, whether there are more, {{message, msg_id, server_seq, status}, ...}, the
server_seq before the first}`, a little more than `bytes` at times."""

MEMBERS: Final = script(
    """
local found = {}
for i, group in ipairs(cmsgpack.unpack(ARGV[3])) do found[i] = redis.call('SMEMBERS', prefix .. 'members:' .. group) end
return cmsgpack.pack({now, found})
"""
)
"""Arguments: groups. Answers the members of each."""

GROUP: Final = script(
    """
local what, group, made_at, name, limit = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local asked = cmsgpack.unpack(ARGV[8])
local about, within = prefix .. 'group:' .. group, prefix .. 'members:' .. group
local exists = redis.call('HEXISTS', about, 'created_at') == 1
if what == 'create' and exists then return cmsgpack.pack({now, {'exists'}}) end
if what ~= 'create' and not exists then return cmsgpack.pack({now, {'absent'}}) end

local count, users = redis.call('SCARD', within), {}
for _, user in ipairs(asked) do
  if not users[user] then
    users[user] = true
    if redis.call('SISMEMBER', within, user) == 0 then count = count + 1 end
  end
end
if (what == 'create' or what == 'add') and count > limit then return cmsgpack.pack({now, {'full', count}}) end
redis.call('SCARD', prefix .. 'groups')

if what == 'create' then
  redis.call('HSET', about, 'name', name, 'created_at', made_at)
  redis.call('SADD', prefix .. 'groups', group)
end
if what == 'create' or what == 'add' then
  for user in pairs(users) do redis.call('SADD', within, user) end
elseif what == 'remove' then
  for user in pairs(users) do redis.call('SREM', within, user) end
elseif what == 'delete' then
  redis.call('DEL', about, within)
  redis.call('SREM', prefix .. 'groups', group)
  return cmsgpack.pack({now, {'deleted'}})
end
return cmsgpack.pack({now, {'group', redis.call('HGET', about, 'name'), redis.call('HGET', about, 'created_at'),
  redis.call('SMEMBERS', within)}})
"""
)
"""Arguments: `create`, `add`, `remove`, `delete` or `find`, the group, created_at, its name, the most members, users.
Answers `group, name, created_at, {user, ...}`, `deleted`, `exists`, `absent` or `full, members there would be`."""

LIST: Final = script(
    """
local found = {}
for _, group in ipairs(redis.call('SMEMBERS', prefix .. 'groups')) do
  if ARGV[3] == '0' or redis.call('SISMEMBER', prefix .. 'members:' .. group, ARGV[3]) == 1 then
    found[#found + 1] = group
  end
end
return cmsgpack.pack({now, found})
"""
)
"""Arguments: a user, or 0. Answers the groups that there are, or that the user is in."""

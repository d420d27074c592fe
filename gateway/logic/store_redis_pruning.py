"""Forgetting in the Redis store, as Lua. Constant texts; the rules for them are those of store_redis_scripts."""

from __future__ import annotations

from typing import Final

from gateway.logic.store_redis_scripts import script

TURN: Final = script(
    """
local taken = redis.call('SET', prefix .. 'pruning', '1', 'NX', 'PX', ARGV[3])
return cmsgpack.pack({now, taken and true or false})
"""
)
"""Argument: for how many ms. Answers whether a round may begin now."""

PRUNE: Final = script(
    """
local users, before, keep, room = cmsgpack.unpack(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function oldest(key)
  local length, found = redis.call('LLEN', key), {}
  local texts = length > 1 and redis.call('LRANGE', key, 0, math.min(room, length - 1) - 1) or {}
  for at, text in ipairs(texts) do
    local id = string.match(text, '^%d+') or ''
    local head = redis.call('GETRANGE', prefix .. 'message:' .. id, 0, 255)
    local sender, msg_id, stored_at, rest = string.match(head,
      '^{"status":%d,"sender":(%d+),"msg_id":"([^"]*)","server_seq":%d+,"stored_at":(%d+),(.*)')
    local refs = rest and string.match(rest, '^"refs":(%d+)')
    local old = not sender or tonumber(stored_at) < before
    if not ((keep > 0 and at <= length - keep) or old) then break end
    local left = tonumber(redis.call('HGET', prefix .. 'left', id) or refs or '0') - 1
    found[at] = {id = id, sender = refs and sender, msg_id = msg_id, left = left}
  end
  return found
end

local done = 0
for _, user in ipairs(users) do
  if room == 0 then break end
  local key = prefix .. 'timeline:' .. user
  local gone = oldest(key)
  begins(user)
  room = room - #gone
  if room > 0 then done = done + 1 end
  if #gone > 0 then
    redis.call('SET', prefix .. 'version', '2')
    redis.call('LTRIM', key, #gone, -1)
    redis.call('HINCRBY', prefix .. 'begins', user, #gone)
  end
  for _, each in ipairs(gone) do
    if not each.sender then
      -- not there any more, or of version 1, which did not count the entries that show a message: that stays
    elseif each.left > 0 then
      redis.call('HSET', prefix .. 'left', each.id, each.left)
    else
      redis.call('DEL', prefix .. 'message:' .. each.id)
      redis.call('HDEL', prefix .. 'left', each.id)
      redis.call('HDEL', prefix .. 'sent:' .. each.sender, each.msg_id)
      redis.call('ZREM', prefix .. 'owed:' .. each.sender, each.id)
    end
  end
end
return cmsgpack.pack({now, done})
"""
)
"""Arguments: users, before when, how many to keep, the most to forget. Answers with how many of the users it is done:
the next may have more. The newest entry of each stays. Keys of a wrong kind stop it between two users."""

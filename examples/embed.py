"""A gateway inside another Trio program: your function handles the messages.

    python examples/embed.py

Then, in two more terminals, `python -m gateway chat --user 1001 --to 1002` and the other way round.
Ctrl-C ends it; nothing is left behind.
"""

from __future__ import annotations

import trio

import gateway
from gateway.protocol.messages import ChatMessage

CONFIG = gateway.Config()  # embedded defaults: TCP on 9000, WebSocket on 8080, development tokens, loopback only


async def main() -> None:
    """Run a node until Ctrl-C, echoing every message to its recipient in capitals."""

    async def shout(incoming: gateway.Incoming) -> None:
        message = incoming.message
        if not message.content:
            raise gateway.Refused  # the sender is told Rejected
        loud = ChatMessage(
            msg_id=message.msg_id,
            from_user=incoming.user_id,
            to_user=message.to_user,
            content=message.content.upper(),
            timestamp=message.timestamp,
        )
        reached = await node.push(message.to_user, loud)
        print(f"{incoming.user_id} -> {message.to_user}: {message.content!r}, to {reached} connection(s)")
        # returning tells the sender Stored

    async with gateway.open_node(CONFIG, on_message=shout) as node, trio.open_nursery() as nursery:
        await nursery.start(node.run)
        print("embedded gateway on", *(f"{name}={address}" for name, address in node.addresses.items()))


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        print("left")

"""A bot that answers whatever is said to user 2001, as a Logic of its own.

    python examples/bot.py                        # alone: a node and the bot in this process
    python examples/bot.py gateway.toml           # beside your nodes: the NATS and Redis of that configuration

Then, in another terminal, `python -m gateway chat --user 1001 --to 2001`. Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

import gateway
from gateway.backend import Backend, ChatMessage, EventKind, Incoming, Rejected, Stored, open_backend
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.config import load
from gateway.protocol.ids import new_message_id

BOT = 2001


async def main(path: str | None) -> None:
    """Answer until Ctrl-C."""
    config = load(path).config
    async with open_either(config) as backend, trio.open_nursery() as nursery:

        async def answer(incoming: Incoming) -> Stored | Rejected:
            message = incoming.message
            if message.to_user != BOT:
                return Rejected()
            text = f"you said: {message.content}"
            reply = ChatMessage(msg_id=new_message_id(), from_user=BOT, to_user=incoming.user_id, content=text)
            await backend.push(incoming.user_id, reply)  # to all their devices
            return Stored()  # what the sender is told: here it means "answered"

        async def watch() -> None:
            with backend.presence() as presence:
                async for event in presence:
                    if event.kind in (EventKind.ONLINE, EventKind.OFFLINE):
                        print(f"{event.user_id} is {event.kind} on {event.node_id} ({event.device_id})")

        nursery.start_soon(watch)
        await nursery.start(backend.serve, answer)
        print("the bot is listening")


@asynccontextmanager
async def open_either(config: gateway.Config) -> AsyncIterator[Backend]:
    """On NATS where it is configured; else beside a node in this process."""
    if config.nats.servers:
        async with open_backend(config) as backend:
            yield backend
        return
    bus, locations = MemoryBus(), MemoryLocationStore()
    async with gateway.open_node(config, bus=bus, locations=locations) as node, trio.open_nursery() as nursery:
        await nursery.start(node.run)
        print("a node on", *(f"{name}={address}" for name, address in node.addresses.items()))
        async with open_backend(bus=bus, locations=locations) as backend:
            yield backend
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
    except* KeyboardInterrupt:
        print("left")

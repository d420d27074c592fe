"""Run as a program by test_durability: Logic on a real file, saying on standard output what was Stored.

crash_child.py talk FILE    messages between users until killed; a line `user msg_id server_seq` for each Stored
crash_child.py open FILE    waits for a line, opens the store and writes one message; prints `ok`
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from gateway.protocol.types import AckStatus
from tests.logic.world import open_world


async def talk(path: Path) -> None:
    async with open_world(path) as world:
        devices = [await world.device(user).online() for user in range(1, 6)]
        round_ = 0
        while True:
            for device in devices:
                for i in range(5):
                    device.chat(f"m{round_}-{i}", device.user % 5 + 1)
            await world.settle()
            round_ += 1
            for device in devices:
                for ack in device.acks:
                    assert ack.status == AckStatus.STORED
                    print(device.user, ack.msg_id, ack.server_seq, flush=True)
                device.received.clear()


async def open_once(path: Path) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    async with open_world(path) as world:
        device = world.device(int(sys.argv[3]))
        device.chat("m", 1)
        await world.settle()
        assert [ack.status for ack in device.acks] == [AckStatus.STORED]
    print("ok", flush=True)


if __name__ == "__main__":
    trio.run({"talk": talk, "open": open_once}[sys.argv[1]], Path(sys.argv[2]))

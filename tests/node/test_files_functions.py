"""Files where functions are the Logic: what happens without a function for them, and what one may say."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import gateway
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.backends.memory_files import MemoryFileStore
from gateway.client import FileFailed, OfferedFile
from gateway.core.ports import Bus
from gateway.logic.function import Arrival, FunctionLogic, Incoming, Refused
from gateway.logic.push import Push
from gateway.protocol.codes import Code
from gateway.protocol.files import file_reference
from gateway.protocol.messages import FileAck, FileChunk, FileOffer, Message, MessageAck
from gateway.protocol.subjects import Subjects
from gateway.protocol.types import AckStatus
from tests.node.test_files import PATIENCE, made, seated
from tests.support.files import ack_of, offer_of, send_file
from tests.support.node import open_running
from tests.support.world import open_world

CONTENT = b"abc"
REFERENCE = file_reference(1001, "f-1")


async def nothing(incoming: Incoming) -> None:
    """Nobody sends a message here."""


async def test_without_a_function_for_it_the_recipient_is_told_and_groups_have_no_files(tmp_path: Path) -> None:
    async def on_message(incoming: gateway.Incoming) -> None:
        """Nothing to do."""

    source = made(tmp_path, 1000)
    with trio.fail_after(PATIENCE):
        async with (
            open_running(tmp_path / "data", on_message=on_message) as running,
            seated(running, 1001) as alice,
            seated(running, 1002) as bob,
        ):
            await alice.send_file(source, to_user=1002)
            async for notice in bob.notices:
                if isinstance(notice, OfferedFile):
                    await bob.fetch(notice, tmp_path / "got")
                    break
            with pytest.raises(FileFailed) as refused:
                await alice.send_file(source, group_id=7)
            assert refused.value.code == Code.INVALID_PAYLOAD
    assert (tmp_path / "got").read_bytes() == source.read_bytes()


async def test_a_function_says_what_becomes_of_a_file_and_who_of_a_group_may_have_it() -> None:
    came: list[Message] = []

    async def on_other(arrival: Arrival) -> Message | None:
        came.append(arrival.message)
        if isinstance(arrival.message, FileAck):
            if arrival.user_id != 1002:
                raise Refused
            return arrival.message
        if isinstance(arrival.message, FileOffer) and arrival.message.name == "virus":
            raise Refused(Code.INVALID_PAYLOAD)
        return None

    bus: Bus = MemoryBus()
    locations = MemoryLocationStore()
    logic = FunctionLogic(bus, Push(bus, locations, Subjects()), Subjects(), nothing, on_other)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            await nursery.start(logic.run)
            assert isinstance(bus, MemoryBus)
            store = MemoryFileStore()
            async with open_world(bus=bus, locations=locations, logic=False, file_store=store) as world:
                alice, bob, mallory = [await world.seated(user) for user in (1001, 1002, 1003)]
                offer = offer_of(CONTENT, to_user=0, group_id=7)
                await send_file(alice, CONTENT, offer)
                ack = await alice.receive(MessageAck)
                assert (ack.msg_id, ack.status) == (REFERENCE, AckStatus.STORED)
                await bob.send(FileAck(file_id=REFERENCE))
                assert (await bob.receive(FileChunk)).data == CONTENT
                await mallory.send(FileAck(file_id=REFERENCE))
                assert (await mallory.receive(FileAck)).code == Code.INVALID_PAYLOAD
                asked = FileAck(file_id=REFERENCE, message="7")
                assert came == [offer_of(CONTENT, REFERENCE, to_user=0, group_id=7), asked, asked]
                await alice.send(offer_of(b"", "f-2", name="virus"))
                await ack_of(alice)
                await ack_of(alice)
                ack = await alice.receive(MessageAck)
                assert (ack.status, ack.code) == (AckStatus.REJECTED, Code.INVALID_PAYLOAD)
                for peer in (alice, bob, mallory):
                    await peer.hang_up()
            nursery.cancel_scope.cancel()

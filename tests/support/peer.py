"""The client's end of a connection: speaks frames, awaits frames, judges nothing."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import trio

from gateway._framing import DispatchTable, Frame, FrameDecoder
from gateway.client.transport import TransportFailed
from gateway.protocol.messages import AuthRequest, AuthResponse, Message, decode, encode
from gateway.protocol.types import MsgType

M = TypeVar("M")


class Bytes(Protocol):
    """What a Peer stands on: a Trio stream, or a transport of the client's."""

    async def send_all(self, data: bytes) -> None: ...

    async def receive_some(self) -> bytes | bytearray: ...

    async def aclose(self) -> None: ...


class Peer:
    """The client's end of one connection: speaks frames, awaits frames."""

    def __init__(self, stream: Bytes) -> None:
        self.stream = stream
        self.close_code = 0
        """What a WebSocket's Close said."""
        self.frames: list[Frame] = []
        self.ended = False
        self._seq = 0
        table = DispatchTable(lambda _, code, msg_type, seq: None)
        for kind in MsgType:
            table.on(kind, self._keep)
        self._decoder = FrameDecoder(table, 1 << 20)

    def _keep(self, _: Any, frame: Frame) -> None:
        self.frames.append(frame)

    async def send_bytes(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send(self, message: Message, *, seq: int | None = None) -> int:
        """Send one message in a frame; returns its seq."""
        self._seq = self._seq + 1 if seq is None else seq
        await self.stream.send_all(encode(message, seq=self._seq, timestamp=1))
        return self._seq

    async def frame(self) -> Frame | None:
        """The next frame, or None when the node has ended the stream."""
        while not self.frames and not self.ended:
            try:
                data = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            except TransportFailed as failed:
                self.close_code = failed.code
                data = b""
            self.ended = not data
            self._decoder.feed(None, bytes(data))
        return self.frames.pop(0) if self.frames else None

    async def receive(self, kind: type[M]) -> M:
        """The next message, which must be a `kind`."""
        frame = await self.frame()
        assert frame is not None, f"the node closed instead of sending {kind.__name__}"
        message = decode(frame)
        assert isinstance(message, kind), f"{message} came instead of {kind.__name__}"
        return message

    async def closed(self) -> list[Message]:
        """What was still said until the node closed."""
        said = []
        while (frame := await self.frame()) is not None:
            said.append(decode(frame))
        return said

    async def log_in(self, user: int | str, device: str = "phone", **fields: Any) -> AuthResponse:
        """Authenticate and expect success."""
        fields.setdefault("platform", "ios")
        await self.send(AuthRequest(token=str(user), device_id=device, **fields))
        answer = await self.receive(AuthResponse)
        assert answer.code == 0, answer
        return answer

    async def hang_up(self) -> None:
        await self.stream.aclose()

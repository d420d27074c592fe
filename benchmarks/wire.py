"""The plainest client there is, over any Trio stream, for loads that do as they like. It judges nothing."""

from __future__ import annotations

import trio

from gateway._framing import DispatchTable, Frame, FrameDecoder
from gateway.protocol.messages import AuthRequest, AuthResponse, Message, decode, encode
from gateway.protocol.types import MsgType

FRAME_LIMIT = 1 << 20


class Wire:
    """Frames over a stream: `send`, and what came since in `frames`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.frames: list[Frame] = []
        table = DispatchTable(lambda _, code, msg_type, seq: None)
        for kind in MsgType:
            table.on(kind, self._keep)
        self._decoder = FrameDecoder(table, FRAME_LIMIT)
        self._seq = 1

    def _keep(self, _: object, frame: Frame) -> None:
        self.frames.append(frame)

    async def send(self, message: Message) -> int:
        """Write one frame; its seq."""
        self._seq += 1
        await self.stream.send_all(encode(message, seq=self._seq, timestamp=1))
        return self._seq

    async def frame(self) -> Frame:
        """The next frame.

        Raises:
            trio.BrokenResourceError: there will be none.
        """
        while not self.frames:
            data = await self.stream.receive_some(65_536)
            if not data:
                raise trio.BrokenResourceError
            self._decoder.feed(None, bytes(data))
        return self.frames.pop(0)

    async def log_in(self, token: str, device: str = "phone") -> AuthResponse:
        """Authenticate; the answer.

        Raises:
            trio.BrokenResourceError: refused, or hung up on.
        """
        await self.send(AuthRequest(token=token, device_id=device, platform="bench"))
        answer = decode(await self.frame())
        if not isinstance(answer, AuthResponse) or answer.code:
            raise trio.BrokenResourceError
        return answer

    async def drop_all(self) -> None:
        """Read until the end, and keep nothing."""
        while await self.stream.receive_some(65_536):
            pass

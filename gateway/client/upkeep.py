"""The loop that keeps a client connected: dial, live, decide, wait, again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import trio

from gateway.client.connection import Connection, Ending
from gateway.client.endpoint import Endpoint
from gateway.client.errors import ClientClosed, ClientError, CodedError, Unreachable, describe
from gateway.client.journal import Journal
from gateway.client.laned import LanedConnection
from gateway.client.messages import State
from gateway.client.racing import first
from gateway.client.reconnection import Reconnection
from gateway.client.token import TokenSource, TokenUnavailable, fresh_token
from gateway.client.transport import Dial, LanedTransport, Transport, TransportFailed
from gateway.protocol.messages import AuthRequest


class Upkeep:
    """Runs beside the program's block. `failure` is why there will be no further connection."""

    def __init__(
        self, journal: Journal, endpoints: Sequence[Endpoint], dial: Dial, token: TokenSource, login: AuthRequest
    ) -> None:
        self.connection: Connection | None = None
        self.failure: ClientError | None = None
        self._journal = journal
        self._settings = journal.settings
        self._dial = dial
        self._token = token
        self._login = login
        self._policy = Reconnection(
            endpoints, journal.settings, renewable=not isinstance(token, str), random=journal.random
        )
        self._closing = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._last = Ending()
        journal.url = endpoints[0].url

    @property
    def closing(self) -> bool:
        """No further connection will be made."""
        return self._closing.is_set()

    def check(self) -> None:
        """Raises what ended the client, if anything did."""
        if self.failure is not None:
            raise self.failure
        if self.closing:
            raise ClientClosed("the client is closed")

    async def run(self) -> None:
        """Connects, and connects again, until closed or refused. Raises nothing but trio.Cancelled."""
        try:
            while not self.closing:
                await self._round()
        except CodedError as error:
            self.failure = error
        except Exception as error:
            fault: BaseException = error
            while isinstance(fault, BaseExceptionGroup) and len(fault.exceptions) == 1:
                fault = fault.exceptions[0]
            self.failure = ClientError(f"fault in the client: {fault!r}")
            self.failure.__cause__ = fault
        finally:
            code, reason = 0, ""
            if isinstance(self.failure, CodedError):
                code, reason = self.failure.code, self.failure.reason
            self._closing.set()
            self._journal.enter(State.CLOSED, code=code, reason=reason)
            self._journal.notices.close()
            self._journal.delivered.ring()
            self._journal.settled.ring()

    async def wait_login(self) -> None:
        """Return after the first login.

        Raises:
            Unreachable: none within start_timeout.
            Refused: there will be none.
        """
        with trio.move_on_after(self._settings.start_timeout):
            while not self._journal.logins:
                self.check()
                await self._journal.changed.wait()
            return
        code, reason = self._last.code, self._last.reason
        told = describe(code, reason) if code or reason else f"no answer from {self._journal.url}"
        raise Unreachable(told, code=code, reason=reason)

    async def wait_online(self) -> Connection:
        """The connection, once it has a session. The caller holds a deadline.

        Raises:
            ClientClosed, Refused: there will be none.
        """
        await trio.lowlevel.checkpoint()
        while True:
            self.check()
            if self.connection is not None and self.connection.online:
                return self.connection
            await self._journal.changed.wait()

    async def finish(self) -> None:
        """Write what is queued, say goodbye, end. The caller holds a deadline."""
        self._closing.set()
        if self.connection is not None and self.connection.online:
            self.connection.finish()
        elif self._scope is not None:
            self._scope.cancel()
        while self._journal.state is not State.CLOSED:
            await self._journal.changed.wait()

    async def _round(self) -> None:
        endpoints = self._policy.endpoints
        self._journal.url = endpoints[0].url
        self._journal.attempts += 1
        self._journal.enter(State.CONNECTING)
        ending = self._last = await self._attempt(endpoints)
        if self.closing:
            return
        delay = self._policy.after(ending, trio.current_time())
        self._journal.enter(State.WAITING, code=ending.code, reason=ending.reason, delay=delay)
        with trio.CancelScope(deadline=trio.current_time() + delay) as self._scope:
            await trio.sleep_forever()

    async def _attempt(self, endpoints: Sequence[Endpoint]) -> Ending:
        """One connection from the token to the end. Cut off by `finish`, it ends as left."""
        ending = Ending(reason="left")
        with trio.CancelScope() as self._scope:
            try:
                token = await fresh_token(self._token, self._settings.login_timeout)
            except TokenUnavailable as error:
                return Ending(reason=str(error))
            async with trio.open_nursery() as nursery:
                ending = await self._live(endpoints, token, nursery)
                nursery.cancel_scope.cancel()
        return ending

    async def _live(self, endpoints: Sequence[Endpoint], token: str, nursery: trio.Nursery) -> Ending:
        try:
            with trio.fail_after(self._settings.connect_timeout):
                transport = await self._fastest(endpoints, nursery)
        except TransportFailed as failure:
            return Ending(code=failure.code, reason=str(failure), final=failure.final)
        except trio.TooSlowError:
            urls = " or ".join(each.url for each in endpoints)
            return Ending(reason=f"no connection to {urls} within {self._settings.connect_timeout:g} s")
        login = AuthRequest(
            token=token,
            device_id=self._login.device_id,
            platform=self._login.platform,
            client=self._login.client,
            resume_ticket=getattr(transport, "resume_ticket", ""),
        )
        kind = LanedConnection if getattr(transport, "lanes", False) else Connection
        self.connection = kind(cast(LanedTransport, transport), self._journal, login, trio.current_time())
        try:
            return await self.connection.run()
        finally:
            self.connection = None
            with trio.move_on_after(self._settings.close_timeout):
                await transport.aclose()

    async def _fastest(self, endpoints: Sequence[Endpoint], nursery: trio.Nursery) -> Transport:
        """The first link that is up; the others are given up."""

        async def discard(transport: Transport) -> None:
            await transport.aclose()

        attempts = [partial(self._dial, endpoint, nursery) for endpoint in endpoints]
        index, transport = await first(attempts, discard, self._settings.stagger)
        self._policy.won(endpoints[index])
        self._journal.url = endpoints[index].url
        return transport

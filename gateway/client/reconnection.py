"""What to do after a connection has ended: when and where to try again, or that it is over. No clock, no task.

The rules are those of the code table (`gateway.protocol.codes.reconnect_after`) and of GoAway.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.client.backoff import Backoff
from gateway.client.connection import Ending
from gateway.client.endpoint import Endpoint, told_endpoints
from gateway.client.errors import Refused, Unreachable, describe
from gateway.client.settings import ClientSettings
from gateway.protocol.codes import Reconnect, reconnect_after


class Reconnection:
    """The policy of one client, fed with every ending."""

    def __init__(
        self, origin: Endpoint, settings: ClientSettings, *, renewable: bool, random: Callable[[], float]
    ) -> None:
        self._origin = origin
        self._renewable = renewable
        self._token_attempts = settings.token_attempts
        self._stable = settings.backoff_cap
        self._backoff = Backoff(settings.backoff_base, settings.backoff_cap, random)
        self._route = [origin]
        self._index = 0
        self._refusals = 0
        self._was_online = False

    @property
    def endpoint(self) -> Endpoint:
        """Where to connect now."""
        return self._route[self._index]

    def after(self, ending: Ending, now: float) -> float:
        """Seconds to wait until the next attempt.

        Raises:
            Refused: the code says never, or says a new token and there is none.
            Unreachable: the very first connection failed in a way that will not change.
        """
        online = ending.online_for >= 0
        if online:
            self._was_online = True
            self._refusals = 0
        if ending.online_for >= self._stable:
            self._backoff.reset()
        advice = reconnect_after(ending.code)
        if advice is Reconnect.NEVER:
            raise self._refused(ending)
        if ending.final and not self._was_online:
            raise Unreachable(ending.reason, code=ending.code, reason=ending.reason)
        if ending.not_before:
            self._reroute(ending.endpoints)
            return max(0.0, ending.not_before - now)
        if advice is Reconnect.WITH_NEW_TOKEN:
            self._refusals += 1
            if not self._renewable or self._refusals >= self._token_attempts:
                raise self._refused(ending)
            return 0.0 if online else self._backoff.delay()
        if not online:
            self._index = (self._index + 1) % len(self._route)
        return ending.retry_after + self._backoff.delay()

    def _reroute(self, told: tuple[str, ...]) -> None:
        followed = told_endpoints(self._origin, told)
        self._route = [*followed, *([] if self._origin in followed else [self._origin])]
        self._index = 0

    def _refused(self, ending: Ending) -> Refused:
        text = describe(ending.code, ending.reason)
        if reconnect_after(ending.code) is Reconnect.WITH_NEW_TOKEN and not self._renewable:
            text += " (a new token is needed)"
        return Refused(text, code=ending.code, reason=ending.reason)

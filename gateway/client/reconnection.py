"""What to do after a connection has ended: when and where to try again, or that it is over. No clock, no task.

The rules are those of the code table (`gateway.protocol.codes.reconnect_after`) and of GoAway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.client.backoff import Backoff
from gateway.client.connection import Ending
from gateway.client.endpoint import Endpoint, told_endpoints
from gateway.client.errors import Refused, Unreachable, describe
from gateway.client.settings import ClientSettings
from gateway.protocol.codes import Reconnect, reconnect_after


class Reconnection:
    """The policy of one client, fed with every ending."""

    def __init__(
        self, origins: Sequence[Endpoint], settings: ClientSettings, *, renewable: bool, random: Callable[[], float]
    ) -> None:
        self._origins = tuple(origins)
        self._used = self._origins[0]
        self._won = False
        self._renewable = renewable
        self._token_attempts = settings.token_attempts
        self._stable = settings.backoff_cap
        self._backoff = Backoff(settings.backoff_base, settings.backoff_cap, random)
        self._order = self._origins
        """The program's endpoints, the one to begin with first."""
        self._followed: list[Endpoint] = []
        """Where a GoAway sent us, to be tried one after the other before the program's own."""
        self._index = 0
        self._refusals = 0
        self._was_online = False

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where to connect now: several are raced, the first of them with a start."""
        stops = self._stops()
        return stops[self._index % len(stops)]

    def _stops(self) -> list[tuple[Endpoint, ...]]:
        rest = tuple(each for each in self._order if each not in self._followed)
        return [*((each,) for each in self._followed), *([rest] if rest else [])]

    def won(self, endpoint: Endpoint) -> None:
        """A link to this one is up."""
        self._used, self._won = endpoint, True

    def after(self, ending: Ending, now: float) -> float:
        """Seconds to wait until the next attempt.

        Raises:
            Refused: the code says never, or says a new token and there is none.
            Unreachable: the very first connection failed in a way that will not change.
        """
        online = ending.online_for >= 0
        self._learn(online)
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
            self._index = (self._index + 1) % len(self._stops())
        return ending.retry_after + self._backoff.delay()

    def _learn(self, online: bool) -> None:
        """What carried a session begins first the next time; what came up and led to none begins last."""
        won, self._won = self._won, False
        if not won:
            self._order = self._origins
        elif self._used in self._origins:
            rest = tuple(each for each in self._origins if each != self._used)
            self._order = (self._used, *rest) if online else (*rest, self._used)

    def _reroute(self, told: tuple[str, ...]) -> None:
        self._followed = told_endpoints(self._used, told)
        self._index = 0

    def _refused(self, ending: Ending) -> Refused:
        text = describe(ending.code, ending.reason)
        if reconnect_after(ending.code) is Reconnect.WITH_NEW_TOKEN and not self._renewable:
            text += " (a new token is needed)"
        return Refused(text, code=ending.code, reason=ending.reason)

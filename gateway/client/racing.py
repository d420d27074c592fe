"""Several ways to the same end, tried one a little after the other; the first that succeeds is taken.

The idea of happy eyeballs (RFC 8305), for transports and for addresses. Knows neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from gateway.client.transport import TransportFailed

STAGGER = 0.25
"""Seconds until the next one begins though the one before has not failed (RFC 8305 section 5)."""
FAREWELL = 1.0
"""Seconds in which one that came too late may say goodbye."""

T = TypeVar("T")


async def first(
    attempts: Sequence[Callable[[], Awaitable[T]]],
    discard: Callable[[T], Awaitable[None]],
    stagger: float = STAGGER,
) -> tuple[int, T]:
    """Run the attempts until one succeeds; gives its index and its result. The others are cancelled.

    An attempt that is cancelled cleans up behind itself; one that succeeds all the same is given to `discard`.
    The next attempt begins `stagger` seconds after the one before it, or as soon as that has failed.

    Raises:
        TransportFailed: all of them did; final if each was, with the code of the first that told one.
    """
    failures: dict[int, TransportFailed] = {}
    winner: list[tuple[int, T]] = []
    late: list[T] = []

    async def attempt(index: int, failed: trio.Event) -> None:
        try:
            result = await attempts[index]()
        except TransportFailed as failure:
            failures[index] = failure
            failed.set()
            return
        if winner:
            late.append(result)
        else:
            winner.append((index, result))
            nursery.cancel_scope.cancel()

    taken = False
    try:
        async with trio.open_nursery() as nursery:
            for index in range(len(attempts)):
                failed = trio.Event()
                nursery.start_soon(attempt, index, failed)
                if index + 1 < len(attempts):
                    await trio.lowlevel.checkpoint()  # its first steps, imports among them, are not held against it
                    with trio.move_on_after(stagger):
                        await failed.wait()
        taken = bool(winner)
    finally:
        if not taken:  # cancelled from outside with a result in hand: nobody will take it
            late += [result for _, result in winner]
        with trio.move_on_after(FAREWELL, shield=True):
            async with trio.open_nursery() as closing:
                for result in late:
                    closing.start_soon(discard, result)
    if winner:
        return winner[0]
    raise _all_of(attempts, failures)


def _all_of(attempts: Sequence[object], failures: dict[int, TransportFailed]) -> TransportFailed:
    told = [failures[index] for index in range(len(attempts))]
    return TransportFailed(
        "; ".join(dict.fromkeys(str(failure) for failure in told)),
        code=next((failure.code for failure in told if failure.code), 0),
        final=all(failure.final for failure in told),
    )

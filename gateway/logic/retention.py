"""Forgetting what need not be kept: rounds over all timelines, in small steps that leave the store to others."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final

import trio

from gateway.logic.settings import LogicSettings
from gateway.logic.store import Retention, Store, StoreFailed

log = logging.getLogger("gateway.logic")

ROUND: Final = 600.0
"""Seconds, or up to half more, between two rounds: how much later than allowed something may be forgotten."""
FIRST: Final = 30.0
"""Seconds until the first, which has other things to wait for."""
SHARE: Final = 9.0
"""A step is followed by a pause of so many times its length: a tenth of the store's time at most."""
PAUSE: Final = 0.02
"""Seconds of pause at least."""
DAY_MS: Final = 86_400_000


async def forget(
    store: Store,
    settings: LogicSettings,
    wall_ms: Callable[[], int],
    *,
    first: float = FIRST,
    between: float = ROUND,
) -> None:
    """Make rounds until cancelled, if the settings say that anything may go."""
    if not settings.keep_days and not settings.keep_messages:
        return
    await trio.sleep(first * random.uniform(1.0, 1.5))
    while True:
        before = wall_ms() - int(settings.keep_days * DAY_MS) if settings.keep_days else 0
        try:
            await _round(store, Retention(max(0, before), settings.keep_messages))
        except StoreFailed as error:
            log.warning("not_forgotten", extra={"reason": str(error)})
        except Exception:
            log.exception("not_forgotten")
        await trio.sleep(between * random.uniform(1.0, 1.5))


async def _round(store: Store, retention: Retention) -> None:
    after = ""
    while True:
        began = trio.current_time()
        after = await store.prune(retention, after)
        if not after:
            return
        await trio.sleep(max(PAUSE, SHARE * (trio.current_time() - began)))

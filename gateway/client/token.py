"""Where the token comes from: a text, or a callable that gives a fresh one for each login."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import trio

TokenSource = str | Callable[[], str] | Callable[[], Awaitable[str]]


class TokenUnavailable(Exception):
    """The callable raised, took too long, or gave no text."""


async def fresh_token(source: TokenSource, timeout: float) -> str:
    """The token for the login that comes now.

    Raises:
        TokenUnavailable: worth another try later.
    """
    if isinstance(source, str):
        return source
    try:
        with trio.fail_after(timeout):
            token = source()
            if inspect.isawaitable(token):
                token = await token
    except trio.TooSlowError:
        raise TokenUnavailable(f"no token within {timeout:g} s") from None
    except Exception as error:
        raise TokenUnavailable(f"no token: {type(error).__name__}: {error}") from error
    if not isinstance(token, str) or not token:
        raise TokenUnavailable("no token: the callable gave no text")
    return token

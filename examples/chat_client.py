"""A chat partner in forty lines: greets somebody, then answers whatever is said to it, over every reconnection.

python -m gateway                                                # in one terminal
export TOKEN="$(python -m gateway token --user 2001)"
python examples/chat_client.py tcp://127.0.0.1:9000 1001         # in another
python -m gateway chat --user 1001 --to 2001                     # in a third
"""

from __future__ import annotations

import os
import sys

import trio

from gateway.client import Client, ClientError, Receipt, StateChange, connect


async def main(url: str, to: int, token: str) -> None:
    """Talk until cancelled."""
    async with connect(url, token=token, device_id="example") as client, trio.open_nursery() as nursery:
        nursery.start_soon(watch, client)
        await client.send("hello, say something", to_user=to)  # returns when it is stored
        async for delivery in client:
            if delivery.from_user != client.user_id:
                await client.mark_read(delivery)
                await client.send(f"you said: {delivery.content}", to_user=delivery.from_user)


async def watch(client: Client) -> None:
    """What happens beside the messages."""
    async for notice in client.notices:
        if isinstance(notice, StateChange):
            print(notice.state, notice.reason)
        elif isinstance(notice, Receipt):
            print(notice.msg_id, notice.status.name.lower())


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal() or "TOKEN" not in os.environ:
        sys.exit(f"{__doc__}\nGive a URL and a user's number; the token is taken from TOKEN in the environment.")
    try:
        trio.run(main, sys.argv[1], int(sys.argv[2]), os.environ["TOKEN"])
    except* ClientError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        sys.exit(f"chat_client: {error}")
    except* KeyboardInterrupt:
        print("left")

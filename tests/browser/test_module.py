"""The module alone, in a real browser against a real node: what the page does not show."""

from __future__ import annotations

import pytest

from tests.browser.chromium import Browser
from tests.browser.node import NodeProcess

EXPIRING = """
const [token, user, done] = arguments;
(async () => {
  const { GatewayClient } = await import("/gateway-client.js");
  const granted = await (await fetch(`/dev/token?user=${user}`)).json();
  const tokens = [token, granted.token];
  const refusals = [];
  const tokenProvider = async ({ refused }) => refusals.push(refused) && tokens.shift();
  const client = new GatewayClient(granted.url, { deviceId: "d", tokenProvider });
  client.on("state", ({ state, code, reason }) => {
    if (state !== "stopped" && !(state === "ready" && refusals.length === 2)) return;
    done({ refusals, ended: `${state} ${code} ${reason}`, userId: String(client.userId) });
    client.close();
  });
  await client.start();
})().catch((error) => done({ error: String(error) }));
"""


@pytest.mark.parametrize("ttl", [-10.0, 3.0], ids=["before the login", "while connected"])
def test_an_expired_token_is_replaced_by_a_new_one(node: NodeProcess, first: Browser, ttl: float) -> None:
    first.driver.get(node.console)
    told = first.driver.execute_async_script(EXPIRING, node.token(1001, ttl), 1001)
    assert told == {"refusals": [0, 4101], "ended": "ready 0 ", "userId": "1001"}

"""The promises of Authenticator as tests. Whoever implements Authenticator derives from AuthenticatorContract."""

from __future__ import annotations

import time

import pytest
import trio

from gateway.core.ports import Authenticator, AuthRefused, Credentials

RANGE = range(4100, 4104)
"""Refusals; 4104 is for what could not be asked, which these tests do not provoke."""


class AuthenticatorContract:
    """Needs fixture `authenticator` and `token`."""

    @pytest.fixture
    async def authenticator(self) -> Authenticator:
        raise NotImplementedError

    def token(self, user_id: int, device_id: str, *, expires_in: float = 3600.0) -> str:
        """A token that `authenticator` accepts for this user and device; negative `expires_in`: expired by then."""
        raise NotImplementedError

    def credentials(self, token: str, *, device_id: str = "phone") -> Credentials:
        return Credentials(token=token, device_id=device_id, platform="ios", address="192.0.2.7")

    async def refusal(self, authenticator: Authenticator, credentials: Credentials) -> AuthRefused:
        with trio.fail_after(5), pytest.raises(AuthRefused) as caught:
            await authenticator.authenticate(credentials)
        assert caught.value.code in RANGE
        assert caught.value.message
        if len(credentials.token) > 8:
            assert credentials.token not in caught.value.message
        return caught.value

    async def test_a_good_token_gives_its_user(self, authenticator: Authenticator) -> None:
        for user_id in (1, 1001, 2**63 - 1):
            with trio.fail_after(5):
                identity = await authenticator.authenticate(self.credentials(self.token(user_id, "phone")))
            assert identity.user_id == user_id

    async def test_the_expiry_is_told(self, authenticator: Authenticator) -> None:
        identity = await authenticator.authenticate(self.credentials(self.token(1001, "phone", expires_in=600)))
        assert abs(identity.expires_at - (time.time() + 600)) < 60

    async def test_an_expired_token_is_4101(self, authenticator: Authenticator) -> None:
        refused = await self.refusal(authenticator, self.credentials(self.token(1001, "phone", expires_in=-3600)))
        assert refused.code == 4101

    async def test_another_devices_token_is_refused(self, authenticator: Authenticator) -> None:
        refused = await self.refusal(authenticator, self.credentials(self.token(1001, "phone"), device_id="stolen"))
        assert refused.code == 4100

    @pytest.mark.parametrize(
        "bad",
        ["", "x", "a.b.c", "....", "\x00", "\r\nX", "é" * 9, "a" * 5_000, "a" * 1_000_000, "' OR 1=1 --", "null"],
    )
    async def test_garbage_is_one_generic_refusal(self, authenticator: Authenticator, bad: str) -> None:
        assert (await self.refusal(authenticator, self.credentials(bad))).code == 4100

    async def test_every_changed_character_is_refused_or_means_the_same(self, authenticator: Authenticator) -> None:
        """Flip characters all over a good token; the last one of a base64 part may carry unused bits."""
        good = self.token(1001, "phone")
        for at in range(0, len(good), max(1, len(good) // 40)):
            bad = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
            outcome: set[int] = set()
            try:
                with trio.fail_after(5):
                    outcome.add((await authenticator.authenticate(self.credentials(bad))).user_id)
            except AuthRefused as refused:
                outcome.add(refused.code)
            assert outcome <= {1001, *RANGE}

    async def test_a_cut_token_is_refused(self, authenticator: Authenticator) -> None:
        good = self.token(1001, "phone")
        for at in range(0, len(good) - 1, max(1, len(good) // 40)):
            await self.refusal(authenticator, self.credentials(good[:at]))

    async def test_many_at_once(self, authenticator: Authenticator) -> None:
        seen: list[int] = []

        async def log_in(user_id: int) -> None:
            identity = await authenticator.authenticate(self.credentials(self.token(user_id, "phone")))
            seen.append(identity.user_id)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for user_id in range(1, 51):
                    nursery.start_soon(log_in, user_id)
        assert sorted(seen) == list(range(1, 51))

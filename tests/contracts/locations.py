"""The promises of LocationStore as tests. Whoever implements LocationStore derives from LocationContract."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest
import trio

from gateway.core.ports import Location, LocationStore, LoginPolicy, StoreUnavailable

MULTI = LoginPolicy.MULTI_DEVICE
SINGLE = LoginPolicy.SINGLE_DEVICE
PLATFORM = LoginPolicy.SINGLE_PER_PLATFORM
POLICIES = [MULTI, SINGLE, PLATFORM]


def place(
    conn_id: int, device: str = "phone", *, user: int = 1001, platform: str = "ios", node: str = "node-1"
) -> Location:
    return Location(
        user_id=user,
        access_node=node,
        conn_id=conn_id,
        device_id=device,
        platform=platform,
        login_time=1_700_000_000,
        address="192.0.2.7",
        transport="tcp",
        region="north",
        boot_id=f"boot-of-{node}",
    )


class LocationContract:
    """Needs fixture `store` (empty, and usable by several nodes at once), `lifetime` and `elapse`."""

    lifetime: float
    """Seconds that a claim or a renewal lasts in `store`."""

    @pytest.fixture
    async def store(self) -> LocationStore:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> object:
        """Taken by the tests that let time pass: a MockClock where the store lives by Trio's clock."""
        return None

    async def elapse(self, seconds: float) -> None:
        """Let this much time pass for the store (virtual time, or a short real lifetime)."""
        raise NotImplementedError

    async def conn_ids(self, store: LocationStore, user: int = 1001) -> list[int]:
        found = await store.lookup([user])
        return sorted(each.conn_id for each in found.get(user, []))

    async def test_healthy(self, store: LocationStore) -> None:
        assert store.healthy

    async def test_what_was_claimed_is_found_whole(self, store: LocationStore) -> None:
        mine = place(10)
        assert list(await store.claim(mine, MULTI) or []) == []
        found = (await store.lookup([1001]))[1001]
        assert [msgspec.structs.replace(each, expires_at=0) for each in found] == [mine]
        assert found[0].expires_at > 0

    async def test_users_without_a_location_are_absent(self, store: LocationStore) -> None:
        assert await store.claim(place(10, user=7), MULTI) == []
        assert set(await store.lookup([7, 8, 9])) == {7}
        assert await store.lookup([]) == {}

    async def test_many_users_in_one_lookup(self, store: LocationStore) -> None:
        for user in range(1, 301):
            assert await store.claim(place(user, user=user), MULTI) == []
        found = await store.lookup(range(1, 401))
        assert {user: [each.conn_id for each in places] for user, places in found.items()} == {
            user: [user] for user in range(1, 301)
        }

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_the_same_device_gives_way_always(self, store: LocationStore, policy: LoginPolicy) -> None:
        await store.claim(place(10), policy)
        displaced = await store.claim(place(11, node="node-2"), policy)
        assert displaced is not None
        assert [each.conn_id for each in displaced] == [10]
        assert displaced[0].access_node == "node-1"
        assert await self.conn_ids(store) == [11]

    async def test_multi_device_keeps_other_devices(self, store: LocationStore) -> None:
        assert await store.claim(place(10, "phone"), MULTI) == []
        assert await store.claim(place(11, "tablet"), MULTI) == []
        assert await self.conn_ids(store) == [10, 11]

    async def test_single_device_displaces_all_others(self, store: LocationStore) -> None:
        await store.claim(place(10, "phone"), MULTI)
        await store.claim(place(11, "laptop", platform="web"), MULTI)
        displaced = await store.claim(place(12, "tablet"), SINGLE)
        assert displaced is not None
        assert sorted(each.conn_id for each in displaced) == [10, 11]
        assert await self.conn_ids(store) == [12]

    async def test_single_per_platform_displaces_only_its_platform(self, store: LocationStore) -> None:
        await store.claim(place(10, "phone", platform="ios"), PLATFORM)
        await store.claim(place(11, "laptop", platform="web"), PLATFORM)
        displaced = await store.claim(place(12, "tablet", platform="ios"), PLATFORM)
        assert displaced is not None
        assert [each.conn_id for each in displaced] == [10]
        assert await self.conn_ids(store) == [11, 12]

    async def test_single_per_platform_same_device_on_another_platform(self, store: LocationStore) -> None:
        await store.claim(place(10, "phone", platform="ios"), PLATFORM)
        displaced = await store.claim(place(11, "phone", platform="web"), PLATFORM)
        assert displaced is not None
        assert [each.conn_id for each in displaced] == [10]
        assert await self.conn_ids(store) == [11]

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_another_user_is_never_touched(self, store: LocationStore, policy: LoginPolicy) -> None:
        await store.claim(place(10, user=1), policy)
        assert await store.claim(place(11, user=2), policy) == []
        assert await self.conn_ids(store, 1) == [10]

    @pytest.mark.parametrize(("policy", "device"), [(MULTI, "phone"), (SINGLE, "tablet"), (PLATFORM, "tablet")])
    async def test_the_older_login_loses_a_race(self, store: LocationStore, policy: LoginPolicy, device: str) -> None:
        await store.claim(place(20, "phone"), policy)
        assert await store.claim(place(19, device), policy) is None
        assert await self.conn_ids(store) == [20]

    async def test_a_lost_race_displaces_nobody(self, store: LocationStore) -> None:
        await store.claim(place(10, "phone"), MULTI)
        await store.claim(place(30, "laptop"), MULTI)
        assert await store.claim(place(20, "tablet"), SINGLE) is None
        assert await self.conn_ids(store) == [10, 30]

    async def test_an_older_login_of_another_device_is_no_race_where_devices_may_coexist(
        self, store: LocationStore
    ) -> None:
        await store.claim(place(20, "phone"), MULTI)
        assert await store.claim(place(19, "tablet"), MULTI) == []
        await store.claim(place(22, "laptop", user=5, platform="web"), PLATFORM)
        assert await store.claim(place(21, "phone", user=5, platform="ios"), PLATFORM) == []

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_claiming_again_is_no_displacement(self, store: LocationStore, policy: LoginPolicy) -> None:
        """A node rewrites what it holds after the store was away."""
        mine = place(10)
        await store.claim(mine, policy)
        assert await store.claim(mine, policy) == []
        assert await self.conn_ids(store) == [10]

    async def test_release_by_its_owner(self, store: LocationStore) -> None:
        mine = place(10)
        await store.claim(mine, MULTI)
        assert await store.release(mine)
        assert await store.lookup([1001]) == {}
        assert not await store.release(mine)

    async def test_release_by_the_displaced_leaves_the_newer(self, store: LocationStore) -> None:
        old, new = place(10), place(11, node="node-2")
        await store.claim(old, MULTI)
        await store.claim(new, MULTI)
        assert not await store.release(old)
        assert await self.conn_ids(store) == [11]

    async def test_release_and_renew_need_the_boot_id(self, store: LocationStore) -> None:
        mine = place(10)
        await store.claim(mine, MULTI)
        stranger = msgspec.structs.replace(mine, boot_id="another-boot")
        assert not await store.release(stranger)
        assert [each.conn_id for each in await store.renew([stranger])] == [10]
        assert await self.conn_ids(store) == [10]

    async def test_renew_returns_what_is_not_owned(self, store: LocationStore) -> None:
        kept, displaced, unknown = place(10, user=1), place(11, user=2), place(12, user=3)
        await store.claim(kept, MULTI)
        await store.claim(displaced, MULTI)
        await store.claim(place(13, user=2, node="node-2"), MULTI)
        lost = await store.renew([kept, displaced, unknown])
        assert sorted(each.conn_id for each in lost) == [11, 12]
        assert await self.conn_ids(store, 1) == [10]
        assert await self.conn_ids(store, 2) == [13]
        assert await self.conn_ids(store, 3) == []
        assert list(await store.renew([])) == []

    async def test_a_location_expires(self, clock: object, store: LocationStore) -> None:
        mine = place(10)
        await store.claim(mine, MULTI)
        await self.elapse(self.lifetime * 1.5)
        assert await store.lookup([1001]) == {}
        assert [each.conn_id for each in await store.renew([mine])] == [10]
        assert not await store.release(mine)

    async def test_renewal_extends(self, clock: object, store: LocationStore) -> None:
        mine = place(10)
        await store.claim(mine, MULTI)
        for _ in range(3):
            await self.elapse(self.lifetime * 0.6)
            assert list(await store.renew([mine])) == []
        assert await self.conn_ids(store) == [10]

    async def test_an_expired_one_is_not_displaced_and_wins_no_race(self, clock: object, store: LocationStore) -> None:
        await store.claim(place(20), SINGLE)
        await self.elapse(self.lifetime * 1.5)
        assert await store.claim(place(10, "tablet"), SINGLE) == []
        assert await self.conn_ids(store) == [10]

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_newest_wins_any_race(self, store: LocationStore, policy: LoginPolicy) -> None:
        """Threat 24: whatever the order of arrival, one live location, the newest, and every other was told."""
        for round_, seed in enumerate(range(20)):
            user = 5_000 + round_
            claims = [place(conn_id, user=user, node=f"node-{conn_id % 3}") for conn_id in range(1, 11)]
            random.Random(seed).shuffle(claims)
            displaced: list[int] = []
            refused: list[int] = []

            async def log_in(
                location: Location, displaced: list[int] = displaced, refused: list[int] = refused
            ) -> None:
                gone = await store.claim(location, policy)
                if gone is None:
                    refused.append(location.conn_id)
                else:
                    displaced.extend(each.conn_id for each in gone)

            async with trio.open_nursery() as nursery:
                for claim in claims:
                    nursery.start_soon(log_in, claim)
            assert await self.conn_ids(store, user) == [10]
            assert sorted(displaced + refused) == list(range(1, 10))

    async def test_every_order_of_three_logins(self, store: LocationStore) -> None:
        users = itertools.count(9_000)
        for order in itertools.permutations((1, 2, 3)):
            user = next(users)
            for conn_id in order:
                await store.claim(place(conn_id, f"device-{conn_id}", user=user), SINGLE)
            assert await self.conn_ids(store, user) == [3]

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_many_claims_at_once_are_each_like_one(self, store: LocationStore, policy: LoginPolicy) -> None:
        await store.claim(place(10, user=1), policy)
        await store.claim(place(20, user=2, node="node-2"), policy)
        mine = [place(11, user=1), place(12, user=2), place(13, user=3), place(14, "tablet", user=3)]
        first, second, third, fourth = await store.reclaim(mine, policy)
        assert not isinstance(first, StoreUnavailable)
        assert [each.conn_id for each in first or []] == [10]
        assert second is None
        assert third == []
        assert not isinstance(fourth, StoreUnavailable)
        assert [each.conn_id for each in fourth or []] == ([] if policy is MULTI else [13])
        assert await self.conn_ids(store, 1) == [11]
        assert await self.conn_ids(store, 2) == [20]
        assert await self.conn_ids(store, 3) == ([13, 14] if policy is MULTI else [14])
        assert list(await store.reclaim([], policy)) == []

    async def test_everything_is_claimed_anew(self, store: LocationStore) -> None:
        mine = [place(conn_id, user=conn_id) for conn_id in range(1, 1_301)]
        for _ in range(2):
            assert list(await store.reclaim(mine, MULTI)) == [[]] * len(mine)
        assert set(await store.lookup(range(1, 1_301))) == set(range(1, 1_301))
        assert await store.renew(mine) == []

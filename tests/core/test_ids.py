"""Connection ids."""

from gateway.core.ids import ConnectionIds, secret_id


def test_ids_grow_and_fit_63_bits() -> None:
    ids = ConnectionIds()
    issued = [ids.issue() for _ in range(20_000)]
    assert issued == sorted(set(issued))
    assert issued[0] > 0
    assert issued[-1] < 2**63


def test_a_clock_that_jumps_back_repeats_nothing() -> None:
    clock = iter([1_800_000_000_000, 1_800_000_000_000, 1_800_000_000_000 - 3_600_000, 1_799_999_999_999])
    ids = ConnectionIds(lambda: next(clock))
    issued = [ids.issue() for _ in range(4)]
    assert issued == sorted(set(issued))


def test_later_time_is_a_greater_id_whatever_the_tag() -> None:
    moments = [1_800_000_000_000, 1_800_000_000_001]
    for _ in range(50):
        earlier = ConnectionIds(lambda: moments[0]).issue()
        later = ConnectionIds(lambda: moments[1]).issue()
        assert earlier < later


def test_a_full_millisecond_borrows_from_the_next() -> None:
    ids = ConnectionIds(lambda: 1_800_000_000_000)
    issued = [ids.issue() for _ in range(10_000)]
    assert len(set(issued)) == 10_000


def test_secrets_have_128_bits() -> None:
    assert len(secret_id()) == 22
    assert len({secret_id() for _ in range(100)}) == 100

"""Rates, connection counts and error budgets, with the time given by the test."""

from gateway.core.limits import Admission, ErrorBudget, TokenBucket, address_block
from gateway.core.settings import LimitSettings
from gateway.protocol.codes import Code


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10.0, burst=5, now=100.0)
    assert all(bucket.spend(100.0) for _ in range(5))
    assert not bucket.spend(100.0)
    assert not bucket.spend(100.05)
    assert bucket.spend(100.5)


def test_an_overdrawn_bucket_says_how_long_to_wait() -> None:
    bucket = TokenBucket(rate=10.0, burst=5, now=0.0)
    for _ in range(7):
        bucket.spend(0.0)
    assert bucket.wait(0.0, 4.0) == 0.6
    assert bucket.wait(0.6, 4.0) == 0.0
    assert bucket.wait(0.0, 1_000.0) == 0.7  # never more than the burst can hold


def test_silence_fills_a_bucket_no_further_than_its_burst() -> None:
    bucket = TokenBucket(rate=10.0, burst=5, now=0.0)
    bucket.spend(0.0)
    taken = sum(bucket.spend(10_000.0) for _ in range(100))
    assert taken == 5


def test_errors_are_counted_by_the_minute() -> None:
    budget = ErrorBudget()
    assert all(budget.spend(1000.0, 10) for _ in range(10))
    assert not budget.spend(1059.0, 10)
    assert budget.spend(1060.1, 10)


def test_an_address_is_an_ipv4_address_or_an_ipv6_64() -> None:
    assert address_block("192.0.2.7") == "192.0.2.7"
    assert address_block("2001:db8:1:2:3:4:5:6") == address_block("2001:db8:1:2:ffff::1")
    assert address_block("2001:db8:1:2::1") != address_block("2001:db8:1:3::1")
    assert address_block("::ffff:192.0.2.7") == "192.0.2.7"
    assert address_block("fe80::1%eth0") == address_block("fe80::2")
    assert address_block("not an address") == "not an address"


def test_admission_counts_the_node_and_each_address() -> None:
    admission = Admission(LimitSettings(max_connections=3, max_connections_per_address=2))
    for _ in range(2):
        assert admission.admit("192.0.2.1") is Code.OK
        admission.enter("192.0.2.1")
    assert admission.admit("192.0.2.1") is Code.TOO_MANY_CONNECTIONS
    assert admission.admit("192.0.2.2") is Code.OK
    admission.enter("192.0.2.2")
    assert admission.admit("192.0.2.3") is Code.NODE_FULL
    admission.leave("192.0.2.1")
    assert admission.admit("192.0.2.1") is Code.OK
    admission.leave("192.0.2.1")
    admission.leave("192.0.2.2")
    assert admission.statistics() == {"open": 0, "addresses": 0}


def test_asking_leaves_nothing_behind() -> None:
    admission = Admission(LimitSettings())
    for number in range(1000):
        admission.admit(f"192.0.2.{number % 256}")
    assert admission.statistics()["addresses"] == 0


def test_a_closed_door_admits_nobody() -> None:
    admission = Admission(LimitSettings())
    admission.closed = True
    assert admission.admit("192.0.2.1") is Code.GOING_AWAY

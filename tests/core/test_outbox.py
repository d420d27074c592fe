"""The bound, the order, and what a verdict means."""

from gateway.core.outbox import ITEM_COST, Outbox, Verdict


def test_frames_come_out_in_order() -> None:
    outbox = Outbox(10_000)
    frames = [bytes([number]) * 10 for number in range(20)]
    assert all(outbox.push(frame) is Verdict.QUEUED for frame in frames)
    assert outbox.take(1 << 20) == frames
    assert len(outbox) == 0
    assert outbox.waiting == 0


def test_a_slice_takes_about_so_many_bytes_and_at_least_one_frame() -> None:
    outbox = Outbox(1 << 20)
    frames = [bytes([number]) * 1000 for number in range(10)]
    for frame in frames:
        outbox.push(frame)
    taken = [outbox.take(2_500), outbox.take(10)]
    assert [len(part) for part in taken] == [2, 1]
    assert taken[0] + taken[1] + outbox.take(1 << 20) == frames
    assert outbox.waiting == 0


def test_one_byte_too_many_is_an_overflow_and_changes_nothing() -> None:
    outbox = Outbox(2 * (100 + ITEM_COST))
    assert outbox.push(b"x" * 100) is Verdict.QUEUED
    assert outbox.push(b"x" * 101) is Verdict.OVERFLOW
    assert outbox.push(b"x" * 100) is Verdict.QUEUED
    assert outbox.push(b"") is Verdict.OVERFLOW
    assert len(outbox) == 2


def test_what_the_link_keeps_counts_too() -> None:
    outbox = Outbox(1000)
    assert outbox.push(b"x" * 100, unsent=900) is Verdict.OVERFLOW
    assert outbox.push_signal((1, "typing"), b"x" * 100, unsent=900) is Verdict.DROPPED


def test_a_signal_without_room_leaves_the_older_one() -> None:
    outbox = Outbox(1000)
    assert outbox.push_signal((1, "typing"), b"old") is Verdict.QUEUED
    assert outbox.push_signal((1, "typing"), b"x" * 1000) is Verdict.DROPPED
    assert outbox.take(10_000) == [b"old"]
    assert outbox.waiting == 0


def test_only_the_newest_signal_of_a_kind_is_kept() -> None:
    outbox = Outbox(10_000)
    assert outbox.push_signal((1, "typing"), b"old") is Verdict.QUEUED
    assert outbox.push_signal((2, "typing"), b"other user") is Verdict.QUEUED
    assert outbox.push_signal((1, "cursor"), b"other kind") is Verdict.QUEUED
    assert outbox.push_signal((1, "typing"), b"new") is Verdict.CONFLATED
    assert len(outbox) == 3
    assert outbox.take(1 << 20) == [b"other user", b"other kind", b"new"]
    assert outbox.waiting == 0


def test_signals_give_way_to_messages() -> None:
    outbox = Outbox(10_000)
    outbox.push_signal((1, "typing"), b"s" * 100)
    outbox.push(b"m" * 100)
    assert outbox.take(150) == [b"m" * 100]
    assert outbox.take(150) == [b"s" * 100]
    assert outbox.waiting == 0


def test_a_thousand_kinds_of_signals_are_bounded() -> None:
    outbox = Outbox(5_000)
    verdicts = [outbox.push_signal((1, str(number)), b"x") for number in range(1000)]
    assert Verdict.DROPPED in verdicts
    assert outbox.waiting <= 5_000


def test_clear_forgets_everything() -> None:
    outbox = Outbox(5_000)
    outbox.push(b"x")
    outbox.push_signal((1, "typing"), b"x")
    outbox.clear()
    assert (len(outbox), outbox.waiting) == (0, 0)

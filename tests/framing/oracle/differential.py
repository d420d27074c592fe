"""Differential test against the C++ reference verifier: what we accept, it accepts; what we refuse beyond it is named.

    python -m tests.framing.oracle.differential [--mutants N] [--seed N]

Every refusal beyond the reference's is checked a second time: the plain Python verifier must give the same reason.
Exit status: 0 they agree, 1 they do not, 3 something that the oracle needs is not installed.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from gateway._framing import HEADER, FrameError, build_frame, parse_frame
from gateway.protocol.messages import decode, packet
from tests.framing import bombs, reference, writer
from tests.framing.oracle.build import Missing, build
from tests.framing.outcome import envelope_outcome, outcome
from tests.framing.schema import INTERNAL_TABLES, PAYLOADS, SCALARS, TABLES, Field
from tests.framing.strategies import mutate

BEYOND: Final = {
    reference.UTF8: "text that is no UTF-8",
    reference.BUDGET: "the work budget",
    reference.VTABLE: "a vtable without its two head entries",
    reference.ALIGNMENT: "elements of 8 bytes that are not aligned",
    reference.NO_PAYLOAD: "a payload that is missing",
    "4003": "a msg_type that is not the header's",
}
"""What we refuse and the reference does not, by reason. Any other reason is a failure."""
LETTERS: Final = {"Upstream": b"U", "Downstream": b"D", "UserEvent": b"E", "Undelivered": b"N"}
WORDS: Final = (0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 0x7FFF, 0xFFF8, 0xFFFC, 0xFFFF)
TEXTS: Final = ("", "a", "msg-1", "héllo", "€" * 9, "𐀀", "x" * 70)


def value(rng: random.Random, field: Field) -> Any:
    """Any value for a field."""
    if field.kind in SCALARS:
        _, least, greatest = SCALARS[field.kind]
        return rng.choice((0, 1, least, greatest, rng.randint(least, greatest)))
    if field.kind == "string":
        return rng.choice(TEXTS)
    if field.kind == "[ubyte]":
        return rng.randbytes(rng.randrange(40))
    if field.kind == "[int64]":
        return [rng.randrange(2**63) for _ in range(rng.randrange(4))]
    return [fields(rng, field.element) if field.element else rng.choice(TEXTS) for _ in range(rng.randrange(4))]


def fields(rng: random.Random, table: str) -> dict[str, Any]:
    """Some of a table's fields in any order."""
    chosen = [field for field in TABLES[table] if rng.random() < 0.7]
    rng.shuffle(chosen)
    return {field.name: value(rng, field) for field in chosen}


def frame_seeds(rng: random.Random) -> list[tuple[int, bytes]]:
    """Valid bodies of every type, in several layouts, and our own builders'."""
    seeds = []
    for msg_type, table in PAYLOADS.items():
        for newer in (0, 0, 0, 1):
            head = {name: rng.randrange(2**64) for name in ("seq", "timestamp") if rng.random() < 0.7}
            body = writer.packet(msg_type, fields(rng, table), newer, **head)
            seeds.append((msg_type, body))
            seeds.append((msg_type, decoded_and_ours(msg_type, body)))
    seeds += [(0, writer.packet(0, seq=5)), (0, writer.packet(0, timestamp=5))]
    seeds += [bombs.shared_empty_table(20), bombs.shared_table(20, b""), bombs.shared_text(20, b"x" * 20)]
    seeds += [
        bombs.shared_scalar(60),
        bombs.shared_table(60, b"text"),
        bombs.shared_text(60, "€".encode() * 9),
    ]  # over the budget
    return seeds


def decoded_and_ours(msg_type: int, body: bytes) -> bytes:
    """The same message as `gateway.protocol.messages` writes it."""
    return packet(decode(parse_frame(msg_type, body)), seq=1, timestamp=2)


def offsets(rng: random.Random) -> bytes:
    """A small buffer of plausible offsets: overlaps, cycles, tables inside vtables."""
    count = rng.randrange(4, 30)
    return struct.pack(f"<{count}H", *(rng.choice(WORDS) for _ in range(count)))


class Difference(Exception):
    """The two verifiers disagree in a way that has no name."""


class Differential:
    """Both verifiers over many buffers, counting."""

    def __init__(self, oracle: Any, seed: int) -> None:
        self.oracle = oracle
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def judge(self, what: str, data: bytes, ours: str, theirs: bool, plain: Callable[[], str]) -> None:
        """Compare one buffer; `ours` is our reason or nothing, `plain` asks the Python verifier for its own."""
        if not ours:
            if not theirs:
                raise Difference(f"{what}: we accept what the reference refuses: {data.hex()}")
            self.counts["accepted by both"] += 1
        elif not theirs:
            self.counts["refused by both"] += 1
        else:
            if ours not in BEYOND or plain() != ours:
                raise Difference(f"{what}: we alone refuse, {ours!r}, plainly {plain()!r}: {data.hex()}")
            self.counts[f"refused by us alone: {BEYOND[ours]}"] += 1

    def frame(self, msg_type: int, body: bytes) -> None:
        def named(verdict: tuple[int, str]) -> str:
            return verdict[1] or (str(verdict[0]) if verdict[0] else "")

        ours = named(outcome(msg_type, body))
        if not body:
            return
        theirs = self.oracle.oracle_frame(body, len(body), msg_type) == 1
        self.judge(f"type {msg_type}", body, ours, theirs, lambda: named(reference.verdict(msg_type, body)))
        if not ours:
            self.read(msg_type, body)

    def read(self, msg_type: int, body: bytes) -> None:
        """Whatever is accepted reads the same in place and through the PyPI reader."""
        frame = parse_frame(msg_type, body)
        message = decode(frame)
        for name in message.__struct_fields__ if msg_type in (10, 11, 12) else ():
            ours = {"timestamp": "sent_at" if msg_type == 10 else "acked_at"}.get(name, name)
            if getattr(frame, ours) != getattr(message, name):
                raise Difference(f"type {msg_type}: {name} reads differently: {body.hex()}")

    def envelope(self, name: str, data: bytes) -> None:
        theirs = bool(data) and self.oracle.oracle_envelope(data, len(data), LETTERS[name]) == 1
        self.judge(name, data, envelope_outcome(name, data), theirs, lambda: reference.envelope_verdict(name, data))

    def run(self, count: int) -> None:
        """Judge every seed as it is, then take `count` steps: mutated frames, some envelopes, some small offsets."""
        rng = self.rng
        frames = frame_seeds(rng)
        envelopes = [(name, writer.table(name, fields(rng, name))) for name in INTERNAL_TABLES for _ in range(6)]
        envelopes += [("Downstream", misaligned_ids())] * 2
        for msg_type, body in frames:
            self.frame(msg_type, body)
        for name, data in envelopes:
            self.envelope(name, data)
        bodies = [body for _, body in frames]
        types = sorted(PAYLOADS)
        for number in range(count):
            if number % 5 == 3:
                name, data = rng.choice(envelopes)
                self.envelope(name, mutate(rng, data, bodies))
            elif number % 5 == 4:
                self.frame(rng.choice(types), offsets(rng))
                self.frame(msg_type := rng.choice(types), wrapped(msg_type, offsets(rng)))
            else:
                msg_type, body = rng.choice(frames)
                self.frame(msg_type, mutate(rng, body, bodies))


def misaligned_ids() -> bytes:
    """A Downstream whose conn_ids stand on a multiple of 4, which the reference lets pass."""
    ids = struct.pack("<I4q", 4, 1, 2, 3, 4)
    for gap in (0, 4):
        data = writer.raw_table([None, struct.pack("<I", 12 + gap)], bytes(gap) + ids)
        if envelope_outcome("Downstream", data) == reference.ALIGNMENT:
            return data
    raise AssertionError("one of two neighbouring multiples of 4 is none of 8")


def wrapped(msg_type: int, payload: bytes) -> bytes:
    """A Packet in our own layout around any bytes: quicker than through a builder."""
    return build_frame(msg_type, 1, 2, payload)[HEADER:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        oracle = build()
    except Missing as missing:
        print(f"not installed: {missing}", file=sys.stderr)
        return 3
    differential = Differential(oracle, options.seed)
    try:
        differential.run(options.mutants)
    except (Difference, FrameError) as difference:
        print(f"DIFFERENT: {difference}", file=sys.stderr)
        return 1
    total = sum(differential.counts.values())
    unseen = sorted(name for name in BEYOND.values() if not differential.counts[f"refused by us alone: {name}"])
    print(f"{total} buffers against the C++ verifier of FlatBuffers {oracle.oracle_version().decode()}")
    for name, number in sorted(differential.counts.items(), key=lambda item: -item[1]):
        print(f"{number:9}  {name}")
    if unseen and options.mutants >= 200_000:
        print(f"NEVER SEEN, so not proved: {', '.join(unseen)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

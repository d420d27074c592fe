"""What a process of our own does to itself before it serves."""

from __future__ import annotations

import gc
import resource
import sys

import pytest

from gateway.backends.settings_nats import NatsSettings
from gateway.backends.settings_redis import RedisSettings
from gateway.cli import run
from gateway.config import Config


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Config(), []),
        (Config(nats=NatsSettings(servers=("nats://127.0.0.1:4222",))), [0.0005]),
        (Config(redis=RedisSettings(), switch_interval=0.002), [0.002]),
    ],
)
def test_threads_take_turns_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, config: Config, told: list[float]
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(sys, "setswitchinterval", seen.append)
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    run._tune(config)
    assert seen == told

"""How hard Hypothesis tries here: the same examples every time, no deadline on a loaded machine."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TRACED = os.environ.get("GATEWAY_COVERAGE") == "1"  # `make coverage`: unoptimised and traced, twenty times slower

settings.register_profile(
    "framing",
    deadline=None,
    max_examples=25 if TRACED else 150,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("framing")

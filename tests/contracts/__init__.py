"""What every implementation of a port must keep: base classes that its own tests derive from.

A module here holds promises of `gateway/core/ports.py` as tests, and no implementation. Derive, give the
fixtures that the base class names, and pytest runs the whole suite:

    class TestMemoryBus(BusContract):
        @pytest.fixture
        async def bus(self, nursery): ...
"""

import pytest

pytest.register_assert_rewrite("tests.contracts.durable_bus")
pytest.register_assert_rewrite("tests.contracts.bus", "tests.contracts.locations", "tests.contracts.authenticator")

"""`run`: a node from its first listener to its last goodbye, and what signals do to it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager as Opened
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from gateway.backends.keys import KeyRefused
from gateway.cli.banner import banner
from gateway.cli.failure import CommandFailed
from gateway.cli.orders import Orders, Service, leaves_with_terminal
from gateway.cluster import check_cluster
from gateway.config import Config, ConfigError, load
from gateway.core.ports import BusUnusable
from gateway.logic.store import StoreFailed
from gateway.logs import is_readable, logging_to
from gateway.node import Node, open_node

log = logging.getLogger("gateway.run")

S = TypeVar("S", bound=Service)

DRAIN_GRACE = 10.0
"""Seconds beyond `drain.timeout` that draining may take for what comes after the connections."""
SPARE_DESCRIPTORS = 256
"""For files, listeners and the console, beside one for each connection."""


def run(arguments: argparse.Namespace) -> int:
    """Run a node until a signal has ended it; 0 when it left in order, also when it was hurried.

    Raises:
        ConfigError: the configuration cannot be used.
        CommandFailed: the node cannot start.
    """
    config = load(arguments.config, flags=arguments.flags).config
    check_cluster(config)
    return start(config, lambda: open_node(config), partial(_announce, config))


def start(config: Config, opened: Callable[[], Opened[S]], announce: Callable[[S], None]) -> int:
    """Run a service in this process: `opened` it serves, and once it does, `announce` says so.

    Raises:
        ConfigError: the configuration cannot be used.
        CommandFailed: the service cannot start.
    """
    try:
        Path(config.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"cannot make data_dir {config.data_dir!r}: {error.strerror}") from None
    with logging_to(config.log):
        _tune(config)
        return trio.run(_serve, config, opened, announce)


def _tune(config: Config) -> None:
    """What only a process of our own may do to itself."""
    gc.set_threshold(50_000, 20, 50)  # connections live long: collecting often finds them alive, again and again
    if config.nats.servers or config.redis is not None:
        sys.setswitchinterval(config.switch_interval)
    wanted = config.limits.max_connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(config: Config, opened: Callable[[], Opened[S]], announce: Callable[[S], None]) -> int:
    started, with_terminal = False, leaves_with_terminal()
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery, opened() as service:
                patience = config.drain.timeout + DRAIN_GRACE
                orders = Orders(patience, nursery.cancel_scope, leaves_with_terminal=with_terminal)
                nursery.start_soon(orders.follow, signals)
                async with trio.open_nursery() as life:
                    await life.start(service.run)
                    started = True
                    gc.freeze()  # what is there now stays: keep it out of every later collection
                    announce(service)
                    orders.service = service
                nursery.cancel_scope.cancel()
    except Exception as error:
        reason = _reason(error)
        if not started and reason is not None:
            raise reason from None
        log.critical("node_failed", exc_info=error)
        return 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    log.info("left")
    return 0


def _announce(config: Config, node: Node) -> None:
    pin = {"certificate_sha256": node.certificate_sha256} if node.certificate_sha256 else {}
    log.info("serving", extra={"node": config.node_id, "development": config.development, **node.addresses, **pin})
    if is_readable(config.log, sys.stderr):
        print(banner(config, node.addresses, node.certificate_sha256), end="", flush=True)
    if not config.development:  # where nobody brings so many connections
        _tell_limits(config)


def _tell_limits(config: Config) -> None:
    wanted = config.limits.max_connections + SPARE_DESCRIPTORS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        log.warning("descriptors_limited", extra={"limit": limit, "wanted": wanted})


def _reason(error: Exception) -> Exception | None:
    """What to tell a person about a node that could not start; None when only a traceback would do."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, BusUnusable):
        return ConfigError([str(error)])
    if isinstance(error, OSError):
        return CommandFailed(f"cannot start: {error.strerror or error}")
    if isinstance(error, KeyRefused | StoreFailed):
        return CommandFailed(f"cannot start: {error}")
    return None

"""`books`: the accounts of running processes, from their consoles, as one."""

from __future__ import annotations

import argparse
import urllib.error
import urllib.request
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from gateway.cli.failure import CommandFailed
from gateway.config import load
from gateway.core.books import Account, table
from gateway.core.books_cluster import Books, between, merged

TIMEOUT = 5.0
"""Seconds that one console has to answer."""


def books(arguments: argparse.Namespace) -> int:
    """Print them; 1 when an account does not add up."""
    token = load(arguments.config, flags=arguments.flags, files=False).config.console.token
    processes = [ask(url, token) for url in arguments.consoles]
    accounts = merged(processes)
    print(table(accounts))
    if len(processes) > 1:
        print("\nbetween them (what is missing is on its way, or was lost with a process)")
        print(table(between(processes)))
    return int(not all(account.balanced for account in accounts))


def ask(url: str, token: str = "") -> Books:
    """The accounts that a console shows. `url` is `host:port`, or begins with `http`.

    Raises:
        CommandFailed: it cannot be asked, or is no console.
    """
    where = (url if "://" in url else f"http://{url}").rstrip("/")
    request = urllib.request.Request(f"{where}/metrics", headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return read(answer.read().decode())
    except (OSError, ValueError) as error:
        reason: object = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            reason = f"it answers {error.code}" + (", see console.token" if error.code == 401 else "")
        raise CommandFailed(f"the console at {where} cannot be asked: {reason}") from None


def read(text: str) -> Books:
    """The accounts in what Prometheus would read.

    Raises:
        ValueError: it is not that.
    """
    came: dict[str, int] = {}
    became: dict[str, dict[str, int]] = {}
    for name, labels, value in _samples(text):
        if name == "access_books_came":
            came[labels["account"]] = int(value)
        elif name == "access_books_became":
            became.setdefault(labels["account"], {})[labels["outcome"]] = int(value)
    return [Account(name, count, became.get(name, {})) for name, count in came.items()]


def _samples(text: str) -> Iterable[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value

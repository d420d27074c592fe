"""`token`: a token for a user, from whatever secret this machine's node shares."""

from __future__ import annotations

import argparse

from gateway._framing import is_name
from gateway.backends.dev_keys import SigningKey, development_key, issue_token
from gateway.backends.keys import KeyRefused, load_key
from gateway.cli.failure import CommandFailed
from gateway.config import Config, load


def token(arguments: argparse.Namespace) -> int:
    """Print the token and nothing else."""
    config = load(arguments.config, flags=arguments.flags, files=False).config
    if arguments.device and not is_name(arguments.device):
        raise CommandFailed("a device's name is 1 to 64 of the characters A-Z a-z 0-9 _ -")
    print(make_token(config, arguments.user, device_id=arguments.device, ttl=arguments.ttl, kid=arguments.kid))
    return 0


def make_token(config: Config, user_id: int, *, device_id: str = "", ttl: float, kid: str | None = None) -> str:
    """A token that the node with this configuration accepts.

    Raises:
        CommandFailed: the node has no secret that tokens could be signed with.
    """
    return issue_token(
        signing_key(config, kid),
        user_id,
        device_id=device_id,
        ttl=ttl,
        issuer=config.auth.issuer,
        audience=config.auth.audience,
    )


def signing_key(config: Config, kid: str | None) -> SigningKey:
    """The development key, or the HS256 key named `kid`, or the only HS256 key.

    Raises:
        CommandFailed: there is none, or several and no `kid`.
    """
    try:
        if config.development:
            return development_key(config.data_dir)
        secrets = {name: key for name, key in config.auth.keys.items() if key.algorithm == "HS256"}
        if not secrets:
            raise CommandFailed("this node only has public keys: tokens come from whoever holds the private ones")
        if kid is None and len(secrets) > 1:
            raise CommandFailed(f"say which key: --kid {' or --kid '.join(secrets)}")
        name = next(iter(secrets)) if kid is None else kid
        if name not in secrets:
            raise CommandFailed(f"there is no HS256 key {name!r}; there is {', '.join(secrets)}")
        return SigningKey(name, load_key(secrets[name]).material)
    except KeyRefused as refused:
        raise CommandFailed(str(refused)) from None

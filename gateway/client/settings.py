"""What a program may turn in the client. Seconds and bytes throughout."""

from __future__ import annotations

import msgspec


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds and deadlines of one client; the defaults suit a chat program."""

    start_timeout: float = 10.0
    """How long `connect` tries, over several attempts, until it raises Unreachable. `math.inf`: for ever."""
    connect_timeout: float = 10.0
    """One attempt to bring a link up: name, TCP, TLS, upgrade."""
    stagger: float = 0.25
    """Of several URLs, the next is tried so long after the one before, or as soon as that has failed."""
    login_timeout: float = 10.0
    """From the link being up until the answer to Auth; and for the token callable."""
    send_timeout: float = 30.0
    """How long `send` waits for its acknowledgement, reconnections included."""
    request_timeout: float = 10.0
    """How long a Sync waits for its answer."""
    file_patience: float = 60.0
    """How long a file that is sent or fetched may stand still, reconnections included, before it is given up."""
    close_timeout: float = 2.0
    """How long leaving may take, to write what is queued and to say goodbye."""
    reply_timeout: float = 15.0
    """Nothing at all received for so long after a heartbeat: the server is taken for dead."""
    heartbeat_interval: float = 30.0
    """Between heartbeats when the server does not say."""
    resend_after: float = 1.5
    """A message accepted by the node but not stored for so long is sent again; twice as long the next time."""
    resend_longest: float = 3.0
    """The doubling of `resend_after` ends here, so that so long after an outage everything is on its way again. A
    message that comes twice is stored once: what this costs is one frame per waiting message and interval."""
    backoff_base: float = 0.5
    """The first delay before reconnecting is random between 0 and this; it doubles each time."""
    backoff_cap: float = 30.0
    """The longest delay. A connection that has lived this long resets the doubling."""
    token_attempts: int = 3
    """Logins in a row refused for their token, each with a fresh one, until the client gives up."""
    acknowledge: bool = True
    """Acknowledge as Delivered what the program takes from the iteration."""
    automatic_sync: bool = True
    """Sync after each login and whenever deliveries are missing. Without it they are handed out as they come."""
    sync_page: int = 100
    """Messages asked for in one Sync."""
    buffered_deliveries: int = 512
    """Deliveries that wait for the program. Past it no more are kept; Sync brings them when there is room."""
    buffered_notices: int = 256
    """Notices that wait for the program; past it the oldest is dropped."""
    unacknowledged: int = 1024
    """Own messages that may wait for their acknowledgement; past it `send` waits."""
    unacknowledged_bytes: int = 4_194_304
    """The same in bytes of content."""
    max_frame: int = 4_194_304
    """Largest body accepted from the server."""

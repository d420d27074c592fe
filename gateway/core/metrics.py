"""Counts of what happened on this node, as plain numbers; `console` exposes them. No label, no user id."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the latency buckets in seconds; 0.1 is the alert of the design."""


class Latency:
    """A histogram in seconds. `counts[i]` belongs to `BOUNDS[i]`, not cumulated; the last is above them all."""

    __slots__ = ("counts", "total")

    bounds = BOUNDS

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count `times` observations of the same length."""
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.total += seconds * times


class Metrics:
    """Counters since the start, and gauges that are read where they stand; each is zero until it is counted."""

    connections = 0
    """Open now, authenticated or not."""
    sessions = 0
    """Authenticated now."""
    accepted = 0
    messages_received = 0
    """Message frames from clients that were handed to the bus."""
    messages_sent = 0
    """Deliveries queued to connections (one each)."""
    auth_success = 0
    frames = 0
    """Frames from connections that have ended; those of the others their decoders count."""
    auth_requests = 0
    implied_syncs = 0
    """Syncs that an Auth asked for; each goes the way of a frame."""
    passed_up = 0
    """Receipts, Signals and Syncs that were handed to the bus."""
    uplink_asked = 0
    """Messages that a stream was asked to keep, where the uplink is durable; each is one of the next five."""
    uplink_waiting = 0
    """Of these, those that it has not spoken about; goes down too."""
    uplink_confirmed = 0
    uplink_repeated = 0
    """It had them already, under their msg_id."""
    uplink_refused = 0
    """It has them not: their senders were told 4402."""
    uplink_unknown = 0
    """It said nothing in time: their senders were told 4402, and may send them again."""
    signals_held_back = 0
    """Signals from clients over their rate, or that the bus had no room for."""
    downstreams = 0
    """Downstream envelopes from the bus."""
    delivered = 0
    """Downstreams that found at least one connection here."""
    unheard = 0
    """Broadcasts while nobody was here."""
    kicks = 0
    """Downstreams that ask to close connections."""
    copies = 0
    """Frames for connections that did not ask for them, one each; queued, conflated, dropped or overflowed."""
    copies_queued = 0
    copies_dropped = 0
    """The connection was closing, or a Signal found no room."""
    copies_overflowed = 0
    """No room: the connection was closed for it."""
    replies_queued = 0
    """Replies that had to wait behind a full socket."""
    written = 0
    """What waited and was handed to its link."""
    discarded = 0
    """What waited when its connection ended."""
    signals_conflated = 0
    """Copies that took the place of an older Signal."""
    signals_dropped = 0
    undelivered = 0
    """Downstreams that found no connection here."""
    expired = 0
    """Downstreams that came after their `expires_at`."""
    malformed_downstream = 0
    reports_sent = 0
    """Of the undelivered ones, those that Logic was told of (Undelivered): messages that were for somebody."""
    reports_refused = 0
    """Of them, those that it should have been told of, and the bus had no room."""
    reports_not_due = 0
    """Of them, those that nobody is told of: Signals, replies, whatever is not a message."""
    kicks_sent = 0
    """Downstreams to other nodes, to close connections that a login here displaced."""
    kicks_refused = 0
    """Of them, those that the bus had no room for."""
    upstreams_beside = 0
    """Upstreams that are no client's frame: news of files, questions after repeated messages."""
    events_published = 0
    """Words of our own about sessions: online, kicked, offline."""
    events_refused = 0
    """Of these, refused by the bus and lost."""
    events_received = 0
    """User events from the bus, our own among them; each is one of the next four."""
    events_elsewhere = 0
    """About users who are not here."""
    events_presence = 0
    events_delivered = 0
    """Given to the user's connections, once for all of them."""
    events_malformed = 0
    datagrams = 0
    """Datagrams from clients that held one frame; each is a frame."""
    datagrams_dropped = 0
    """Datagrams that held none, came too early or over the rate; no frames."""
    datagrams_refused = 0
    """Of the frames in datagrams, those that were not valid."""
    datagrams_unsent = 0
    """Replies by datagram that found no room."""
    early_accepted = 0
    """0-RTT: Messages and Syncs passed on by the right of the session that the client resumed."""
    early_held = 0
    """0-RTT: frames kept until the handshake or the login; each is fed once more then."""
    early_repeated = 0
    """0-RTT: Messages that had come before, acknowledged again and not passed on."""
    early_dropped = 0
    """0-RTT: Messages whose connection ended before they were passed on; never acknowledged."""
    files_sending = 0
    """Files on their way from clients now."""
    files_fetching = 0
    """Files on their way to clients now."""
    file_frames = 0
    """FileOffers, FileChunks and FileAcks from clients that were handled, as frames; refused ones are in `refused`."""
    files_offered = 0
    """Files that clients began to send, by frame or stream; each is one of the next four, or under way."""
    files_received = 0
    """Stored and announced."""
    files_repeated = 0
    """Were stored already; announced again."""
    files_interrupted = 0
    """The connection or stream ended first; what came waits for the rest."""
    file_bytes_received = 0
    """Bytes of files written to the store."""
    fetches_asked = 0
    """Times that a client asked for a file; each is one of the next three, or under way."""
    files_fetched = 0
    fetches_interrupted = 0
    """The connection ended first, or the client had enough."""
    file_bytes_sent = 0
    """Bytes of files handed to connections."""
    files_expired = 0
    """Files that this node removed because they were too old."""
    throttled = 0
    """Times that reading was paused for the message rate."""
    faults = 0
    """Connections that an exception of ours ended."""

    def __init__(self) -> None:
        self.auth_failed: Counter[int] = Counter()
        """By code."""
        self.refused: Counter[int] = Counter()
        """Requests refused, by code."""
        self.files_refused: Counter[int] = Counter()
        """Files that were not taken, by code."""
        self.fetches_refused: Counter[int] = Counter()
        """Files that were asked for and not sent, by code."""
        self.closed: Counter[int] = Counter()
        """Connections ended, by code; 0 is the peer's own leaving."""
        self.latency = Latency()
        """From a frame's arrival to its hand-over to the bus, or downstream to the socket."""

    def handed_over(self, seconds: float, messages: int) -> None:
        """Count messages that one feed gave to the bus."""
        self.messages_received += messages
        latency = self.latency
        if seconds <= BOUNDS[0]:
            latency.counts[0] += messages  # nearly always, and observed a hundred thousand times a second
            latency.total += seconds * messages
        else:
            latency.observe(seconds, messages)

"""The names under which a node's counts of files are scraped. Nothing is counted here."""

from __future__ import annotations

from typing import Final

COUNTERS: Final = (
    ("access_files_offered", "files_offered", "Files that clients began to send; each is one of the next four."),
    ("access_files_received", "files_received", "Of these, stored and announced."),
    ("access_files_repeated", "files_repeated", "Of these, stored already and announced again."),
    ("access_files_interrupted", "files_interrupted", "Of these, cut off; what came waits for the rest."),
    ("access_files_received_bytes", "file_bytes_received", "Bytes of files written to the store."),
    ("access_fetches_asked", "fetches_asked", "Times that clients asked for a file; each is one of the next three."),
    ("access_files_fetched", "files_fetched", "Of these, sent to the end."),
    ("access_fetches_interrupted", "fetches_interrupted", "Of these, cut off or given up by the client."),
    ("access_files_sent_bytes", "file_bytes_sent", "Bytes of files handed to connections."),
    ("access_files_expired", "files_expired", "Files removed because they were too old."),
)
GAUGES: Final = (
    ("access_files_sending", "files_sending", "Files on their way from clients now."),
    ("access_files_fetching", "files_fetching", "Files on their way to clients now."),
)
BY_CODE: Final = (
    ("access_files_refused", "files_refused", "Files that were not taken, by code."),
    ("access_fetches_refused", "fetches_refused", "Files that were asked for and not sent, by code."),
)

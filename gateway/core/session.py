"""Who a connection speaks for."""

from __future__ import annotations

from gateway.core.limits import TokenBucket


class Session:
    """One login of one device. Times are monotonic seconds, but `login_time`: Unix seconds."""

    __slots__ = ("bucket", "device_id", "expires", "id", "login_time", "platform", "user_id")

    def __init__(
        self,
        id: str,
        user_id: int,
        device_id: str,
        platform: str,
        login_time: int,
        expires: float,
        bucket: TokenBucket,
    ) -> None:
        self.id = id
        self.user_id = user_id
        self.device_id = device_id
        self.platform = platform
        self.login_time = login_time
        self.expires = expires
        self.bucket = bucket

    def expired(self, now: float) -> bool:
        """Whether the token that it was opened with has run out."""
        return now >= self.expires

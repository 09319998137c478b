"""The settings of a database: frozen, and checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UsageError

__all__ = ["DatabaseSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How unitwork looks after one database. Times are in seconds.

    *ping_after_idle*: a pooled connection that lay idle for longer is asked whether it
    still lives before it is handed out; `None` never asks.
    *end_timeout*: how long a rollback, or a stray task that still uses the session, may
    keep a unit from ending; afterwards the connection is thrown away. COMMIT has no
    time limit.
    *drain_timeout*: how long the shutdown waits for units that are still open.
    *check_at_startup*: connect once before the application starts, and fail the start
    if that is impossible.
    *sqlite_defaults*: give an SQLite database that is opened by its URL write-ahead
    logging, enforced foreign keys and `BEGIN IMMEDIATE` for units that may write.

    Raises `UsageError` for a time that is not positive.

    .. versionadded:: 0.1
    """

    ping_after_idle: float | None = 30.0
    end_timeout: float = 5.0
    drain_timeout: float = 10.0
    check_at_startup: bool = False
    sqlite_defaults: bool = True

    def __post_init__(self) -> None:
        for key in ("ping_after_idle", "end_timeout", "drain_timeout"):
            value = getattr(self, key)
            if value is None and key == "ping_after_idle":
                continue
            if not isinstance(value, int | float) or not value > 0:  # NaN is neither
                raise UsageError(f"{key} is {value!r}; give seconds, more than 0")

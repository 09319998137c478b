"""How a test redirects databases. `_commit.observation` is how it observes units.

While a test has redirected a database, `DatabaseCore.redirect` is a function, and every
use of the database (units, `ping()`, its engine) gets the `SessionFactory` that it
returns; it decides by the context of the caller, and may raise. The test kit makes that
factory by `DatabaseCore.factory_for()`: with engines that connect to another database,
or whose transactions are savepoints of one connection. A redirected factory may have a
`gate` and `binds` of its own, also for each unit: see `SessionFactory.open()`.

A request of another process has no context of a test. `redirection.enter` is called
with the ASGI scope of each connection, and returns the context manager in which the
application is to run; `None`: the context is right.

Without a redirection both are `None`, and nothing else is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

__all__ = ["redirection"]


class _Redirection:
    """What the test kit has set, for all databases."""

    __slots__ = ("enter",)

    def __init__(self) -> None:
        self.enter: (
            Callable[[Mapping[str, Any]], AbstractContextManager[object] | None] | None
        ) = None


redirection = _Redirection()

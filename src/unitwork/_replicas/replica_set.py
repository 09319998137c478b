"""The replicas of one database: which ones may serve a unit, in which order."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.util import greenlet_spawn

from .._callables import check_callable
from .._concurrency.fork import forget_after_fork
from .._driver.gtids import Gtids, LogPosition, covers
from .._engine.begin import AUTOCOMMIT, TransactionCharacteristics
from .._engine.create import sync_engine
from .._engine.pool_events import guard
from .._redaction import described
from .._sql.sql_text import MYSQL
from .._transaction.pooler import keep_nothing
from ..errors import UsageError
from .position import Position
from .replica import Replica
from .replica_connections import check

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["ReplicaSet", "with_connect_timeout"]

_CONNECT_TIMEOUT = 5  # seconds; the drivers' own are a minute, or none
_TIMEOUT_OF = {
    "asyncpg": "timeout",
    "psycopg": "connect_timeout",
    "asyncmy": "connect_timeout",
    "pymysql": "connect_timeout",
}
_SHORTEST_TOKEN, _TOKEN_WITHOUT_LIMIT = 60.0, 3600.0  # seconds
_READ_COMMITTED = (None, "READ COMMITTED", "READ UNCOMMITTED")
_tasks: set[asyncio.Task[Any]] = set()
"""The event loop refers to them weakly."""


def with_connect_timeout(url: str | URL, options: dict[str, Any]) -> dict[str, Any]:
    """The *options* of an engine, with a limit for each attempt to connect."""
    try:
        name = _TIMEOUT_OF.get(make_url(url).get_driver_name())
    except (ArgumentError, NoSuchModuleError, ValueError):
        name = None  # refused when it is opened, in a message without a password
    if name is None:
        return options
    arguments = {name: _CONNECT_TIMEOUT, **options.get("connect_args", {})}
    return {**options, "connect_args": arguments}


class ReplicaSet:
    """The replicas of one database. Safe to use from several tasks and threads.

    *given* are their engines, or a function that returns them and is called each time;
    *database* is the name of their database.
    """

    def __init__(
        self,
        given: Sequence[Engine | AsyncEngine] | Callable[[], object],
        *,
        database: str,
        is_async: bool,
        own: Iterable[Engine] = (),
        max_lag: float | None,
        wait: float | None,
        fallback: bool,
        transaction_pooler: bool,
    ) -> None:
        self._given = given
        self._database = database
        self._is_async = is_async
        self.own_engines = list(own)
        """Those that it was given as URLs: to be disposed of."""
        self.max_lag = max_lag
        self.wait = wait or 0.0
        """How many seconds a unit waits for a replica to replay what it must see."""
        self.fallback = fallback
        """Whether the primary serves what no replica can."""
        self._transaction_pooler = transaction_pooler
        self._primary: Engine | None = None
        self.on_change: Callable[[], object] = lambda: None
        """Called after the list has changed."""
        self._known: dict[Engine, Replica] = {}
        if callable(given):
            check_callable("the callable that returns the replicas", given)
        else:
            self._adopt(given)
        forget_after_fork(self)

    def forget_parent(self) -> None:
        for replica in self._known.values():
            replica.forget_parent()

    @property
    def primary(self) -> Engine | None:
        """What they replicate; `None` if its database has no engine yet."""
        return self._primary

    @primary.setter
    def primary(self, engine: Engine) -> None:
        self._primary = engine
        for each in self._known:
            self._check_dialect(each)

    @property
    def replicas(self) -> Iterable[Replica]:
        if callable(self._given):
            given = self._given()
            if not isinstance(given, list | tuple):
                raise UsageError(
                    f"replicas={self._given!r} has returned {described(given)}; "
                    "return a list of engines"
                )
            self._adopt(given)
        return self._known.values()

    @property
    def known(self) -> list[Replica]:
        """Those that are known without calling the application."""
        return list(self._known.values())

    @property
    def known_engines(self) -> list[Engine]:
        return list(self._known)

    def pool_name(self, engine: Engine) -> str:
        """The name of the pool of a replica's *engine*."""
        found = self._known.get(engine)
        return self._database if found is None else found.name

    def _adopt(self, given: Sequence[object]) -> None:
        known = self._known
        engines = [self._checked(each) for each in given]
        if engines != list(known):
            self._known = {
                each: known.get(each) or Replica(each, "") for each in engines
            }
            for number, engine in enumerate(self._known, 1):
                self._known[engine].name = f"{self._database}, replica {number}"
                guard(engine)
                if self._transaction_pooler:
                    keep_nothing(engine)
            self.on_change()

    def _checked(self, given: Any) -> Engine:
        engine = sync_engine(given) if hasattr(given, "sync_engine") else given
        if not isinstance(engine, Engine):
            raise UsageError(
                f"replicas has {described(given)}; give URLs or engines, or a callable "
                "that returns a list of engines"
            )
        if engine.dialect.is_async is not self._is_async:
            wanted = "an async" if self._is_async else "a sync"
            raise UsageError(f"replicas has {described(given)}; give {wanted} engine")
        self._check_dialect(engine)
        return engine

    def _check_dialect(self, engine: Engine) -> None:
        primary = self._primary
        if primary is not None and _database_of(engine) != _database_of(primary):
            raise UsageError(
                f"database {self._database!r} has the dialect {primary.dialect.name}, "
                f"and one of its replicas {engine.dialect.name}: give engines or URLs "
                "of servers that replicate the primary"
            )

    # Which units, and in which order

    def serves(self, wanted: TransactionCharacteristics | None) -> bool:
        """Whether a transaction with these characteristics reads from a replica.

        PostgreSQL's replicas have no SERIALIZABLE.
        """
        if wanted is None or not wanted.read_only or wanted.replica is False:
            return False
        return wanted.isolation_level != "SERIALIZABLE" and not wanted.deferrable

    def candidates(
        self,
        wanted: TransactionCharacteristics | None,
        position: Position | None,
        pinned: Replica | None,
    ) -> list[Replica]:
        """Those to be tried, in this order; those that may be well again are looked at.

        The one that the unit has read from before is the only one: another may not
        have replayed as much.
        """
        usable = []
        for replica in self.replicas:
            if replica.reason:
                self._start_check(replica)
            else:
                usable.append(replica)
        needed = None
        if position is not None:
            if not _can_prove(wanted, position):
                return []
            needed = position.at
            usable = [x for x in usable if needed is None or not x.has_left(needed)]
        if pinned is not None:
            return [pinned] if pinned in usable else []
        return usable if len(usable) < 2 else _in_order(usable, needed)

    def expected_engine(
        self, wanted: TransactionCharacteristics | None, pinned: Replica | None
    ) -> Engine | None:
        """That of the replica that a unit would get; `None`: it uses the primary."""
        if not self.serves(wanted):
            return None
        found = self.candidates(wanted, None, pinned)
        return found[0].engine if found else None

    def _start_check(self, replica: Replica) -> None:
        """Start to look at a *replica* that is not used, if it is time."""
        if not replica.take_check():
            return
        checking = partial(check, replica, self.max_lag)
        if not self._is_async:
            Thread(target=checking, name="unitwork-replica", daemon=True).start()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            replica.check_ended()
            return
        # In a context of its own: a transport keeps the one in which it was created.
        task = loop.create_task(_in_greenlet(checking), context=Context())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    # Positions

    def position_of(self, at: LogPosition | None) -> Position:
        """What was just committed, up to *at*, for as long as a replica may lack it."""
        if self.max_lag is None:
            lasts = _TOKEN_WITHOUT_LIMIT
        else:
            lasts = max(_SHORTEST_TOKEN, 2 * self.max_lag)
        return Position(at, time.time() + lasts)


def _in_order(usable: list[Replica], needed: LogPosition | None) -> list[Replica]:
    """Those first that have what is *needed*, then those that are least in use."""
    first = int(random.random() * len(usable))  # of several that are equal
    found = [*usable[first:], *usable[:first]]
    found.sort(key=_use_of)
    if needed is not None:
        found.sort(key=lambda replica: not covers(replica.position, needed))
    return found


def _database_of(engine: Engine) -> str:
    """What an engine connects to; MySQL has dialects of two names."""
    name = engine.dialect.name
    return "mysql" if name in MYSQL else name


def _use_of(replica: Replica) -> int:
    return replica.in_use


def _can_prove(wanted: TransactionCharacteristics | None, position: Position) -> bool:
    """Whether a replica can show that its transaction sees up to *position*.

    In one with a snapshot the query itself takes it, before its result is made. On
    MariaDB the query precedes the transaction.
    """
    if position.at is None or wanted is None:
        return False
    if isinstance(position.at, Gtids):
        return wanted.isolation_level != AUTOCOMMIT
    return wanted.isolation_level in _READ_COMMITTED


async def _in_greenlet(call: Callable[[], None]) -> None:
    await greenlet_spawn(call)

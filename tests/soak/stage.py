"""The stage of a run: one database, reached directly and through a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from anyio import to_thread
from sqlalchemy import event

from faults.lines import TrappedLines, backend_of
from faults.tables import plain_url
from soak.applications import ASGIApp, applications
from soak.tables import Outsider
from support.flavours import FLAVOURS, kind_of
from support.pool import eventually
from support.proxy import Proxy
from unitwork import AsyncDatabase, DatabaseSettings
from unitwork.testing import check_idle

LIMIT = 20.0
"""Seconds after which a program counts as hung: far above all other limits."""


def settings(patience: float) -> DatabaseSettings:
    """The defaults, with shorter times: *patience* is for busy machines."""
    return DatabaseSettings(
        end_timeout=patience, commit_timeout=patience, verify_timeout=3 * patience
    )


class Stage:
    """Where programs run: a database object, applications on it, an outsider beside."""

    def __init__(
        self,
        driver: str,
        url: str,
        outsider: Outsider,
        proxy: Proxy | None,
        *,
        pool: int,
        patience: float,
        release: str = "transaction",
    ) -> None:
        self.driver = driver
        self.is_sqlite = "sqlite" in driver
        self.outsider = outsider
        self.proxy = proxy
        self.limit = LIMIT * patience
        self.kept: list[Any] = []
        """Cursors, which a program keeps for as long as it lives."""
        self.tasks: set[asyncio.Task[Any]] = set()
        self.running: dict[int, Any] = {}
        """What runs now, by its number."""
        self.db: Any = kind_of(driver)(
            plain_url(proxy.url if proxy else url, FLAVOURS[driver]),
            settings=settings(patience),
            pool_size=pool,
            max_overflow=0,
            pool_timeout=patience,
            release=release,
            **_waits_for_locks(self.is_sqlite, patience),
        )
        self.is_async = isinstance(self.db, AsyncDatabase)
        self.engine = getattr(self.db.engine, "sync_engine", self.db.engine)
        self.apps: dict[tuple[bool, bool], ASGIApp] = applications(self)
        self.lines: TrappedLines | None = None
        if proxy is not None:
            self.lines = TrappedLines(self.engine, proxy, outsider.kill)
        elif not self.is_sqlite:
            event.listen(self.engine, "connect", _connected)

    async def dispose(self) -> None:
        if (result := self.db.dispose()) is not None:
            await result

    async def kill(self, backend: int) -> None:
        if self.is_async:
            await to_thread.run_sync(self.outsider.kill, backend)
        else:
            self.outsider.kill(backend)

    # The end

    async def settle(self) -> list[str]:
        """Wait until nothing moves any more; gives what then still hangs: leaks."""
        self.kept.clear()
        with suppress(TimeoutError, AssertionError):
            await eventually(lambda: not self.leaks(), seconds=self.limit / 2)
        return self.leaks()

    def leaks(self) -> list[str]:
        leaks = ["a task is left"] * len(self.tasks)
        if self.proxy is not None and self.proxy.holding:
            leaks.append("held by the proxy")
        try:
            check_idle(self.db)
        except AssertionError as error:
            leaks.append(str(error))
        if not leaks:
            leaks = [f"on the server: {each}" for each in self.outsider.busy()]
        return leaks


def _waits_for_locks(is_sqlite: bool, patience: float) -> dict[str, Any]:
    """SQLite's own limit, which others hold its lock for, is no setting of unitwork."""
    if not is_sqlite or patience <= 1:
        return {}
    return {"connect_args": {"timeout": 5 * patience}}


def _connected(dbapi_connection: Any, record: Any) -> None:
    record.info["backend"] = backend_of(record.driver_connection)


@asynccontextmanager
async def stages(
    driver: str, url: str, *, pool: int, patience: float, release: str
) -> AsyncIterator[tuple[Stage, Stage]]:
    """A stage with a direct way to the database, and one with a proxy between."""
    async with AsyncExitStack() as stack:
        outsider = Outsider(url)
        stack.callback(outsider.disconnect)
        options: Any = {"pool": pool, "patience": patience, "release": release}
        direct = Stage(driver, url, outsider, None, **options)
        stack.push_async_callback(direct.dispose)
        if direct.is_sqlite:
            yield direct, direct
            return
        proxy = await stack.enter_async_context(Proxy(url))
        behind = Stage(driver, url, outsider, proxy, **options)
        stack.push_async_callback(behind.dispose)
        yield direct, behind

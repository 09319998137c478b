"""The application on its stage: a proxy before the database, and an outsider beside."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self

from anyio import to_thread
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from faults.lines import backend_of, port_of
from faults.tables import Outsider, plain_url
from faults.traps import Fault, FaultTrap, Struck
from faults.workload import application, get_db
from support.asgi import Message, Reply, call
from support.flavours import FLAVOURS, kind_of
from support.pool import eventually
from support.proxy import Proxy
from unitwork import AsyncDatabase, DatabaseSettings, DBSessionMiddleware
from unitwork.testing import check_idle

POOL = 5
LIMIT = 15.0
"""Seconds after which a request that is not over counts as hung."""
SETTINGS = DatabaseSettings(
    end_timeout=0.5, commit_timeout=0.5, verify_timeout=3.0, verify_commit=True
)
_traps: ContextVar[list[FaultTrap]] = ContextVar("traps")


class Stage:
    """`async with Stage(driver, url) as stage: await stage.request("/insert/key")`.

    *plain*: the application is on `Depends(get_db)`, and not on unitwork.
    """

    def __init__(
        self,
        driver: str,
        url: str,
        *,
        plain: bool = False,
        settings: DatabaseSettings = SETTINGS,
    ) -> None:
        self.outsider = Outsider(url)
        self.proxy = Proxy(url)
        self._driver = driver
        self._plain = plain
        self._settings = settings

    async def __aenter__(self) -> Self:
        await to_thread.run_sync(self.outsider.create)
        await self.proxy.__aenter__()
        self.db: Any = kind_of(self._driver)(
            plain_url(self.proxy.url, FLAVOURS[self._driver]),
            settings=self._settings,
            pool_size=POOL,
            max_overflow=0,
            pool_timeout=LIMIT / 2,
        )
        self._serve()
        event.listen(self.engine, "connect", self._connected)
        event.listen(self.engine, "checkout", self._checked_out)
        event.listen(self.engine, "checkin", self._checked_in)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if (result := self.db.dispose()) is not None:
            await result
        await self.proxy.__aexit__(*exc_info)

    def _serve(self) -> None:
        is_async = isinstance(self.db, AsyncDatabase)
        if self._plain:
            make: Any = async_sessionmaker if is_async else sessionmaker
            maker = make(self.db.engine, expire_on_commit=False)
            dependency = get_db(maker, is_async=is_async)
            self.app = application(dependency, is_async=is_async)
        else:
            self.app = application(self.db.session, is_async=is_async)
            self.app.add_middleware(DBSessionMiddleware, db=self.db)

    # Faults

    def meet(self, *faults: Fault, struck: Struck = lambda: None) -> None:
        """The next request of this task meets the *faults*, on its first lines."""
        _traps.set([FaultTrap(fault, struck, self._kill) for fault in reversed(faults)])

    def meet_newcomer(self, fault: Fault, struck: Struck = lambda: None) -> None:
        """The next connection meets *fault*, whoever makes it."""
        self.proxy.for_newcomers.append(FaultTrap(fault, struck))

    async def _kill(self, backend: int) -> None:
        await to_thread.run_sync(self.outsider.kill, backend)

    # Which line serves whom

    def _connected(self, dbapi_connection: Any, record: Any) -> None:
        record.info["backend"] = backend_of(record.driver_connection)
        record.info["port"] = port_of(record.driver_connection)

    def _checked_out(self, dbapi_connection: Any, record: Any, proxy: object) -> None:
        line = self.proxy.lines.get(record.info["port"])
        traps = _traps.get([])
        if line is not None and traps:
            line.trap = trap = traps.pop()
            trap.backend = record.info["backend"]

    def _checked_in(self, dbapi_connection: Any, record: Any) -> None:
        line = self.proxy.lines.get(record.info.get("port"))
        if line is not None:
            line.trap = None

    # Requests

    @property
    def engine(self) -> Engine:
        return getattr(self.db.engine, "sync_engine", self.db.engine)

    async def request(self, path: str) -> Reply:
        method = "GET" if path.startswith("/read") else "POST"
        return await call(self.app, method, path)

    def start(
        self, path: str, seen: list[Message], gone: asyncio.Event
    ) -> asyncio.Task[Reply]:
        """Begin a request; *seen* gets what the client does."""
        method = "GET" if path.startswith("/read") else "POST"
        work = call(self.app, method, path, on_message=seen.append, gone=gone)
        return asyncio.create_task(work)

    # The end

    async def settle(self) -> list[str]:
        """Wait until nothing moves any more; gives what then still hangs: leaks."""
        self.proxy.for_newcomers.clear()
        with suppress(TimeoutError):
            await eventually(lambda: not self._leaks())
        return self._leaks()

    def _leaks(self) -> list[str]:
        leaks = ["held by the proxy"] * int(self.proxy.holding)
        try:
            check_idle(self.db)
        except AssertionError as error:
            leaks.append(str(error))
        return leaks + ["busy on the server"] * len(self.outsider.busy())

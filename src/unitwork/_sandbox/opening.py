"""`sandbox()`, which opens a sandbox and closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, overload

from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn
from typing_extensions import TypeVar

from .._real_databases.pools import Schemas
from .._real_databases.real_databases import LentDatabase
from .._redaction import described
from .._session.database_core import DatabaseCore
from .._unit.database_base import DatabaseBase, core_of
from ..errors import UsageError
from .failure import report
from .membership import inside, open_membership
from .portal import Portal, own_portal
from .real_database import take_all
from .sandbox import Sandbox, SandboxOptions
from .unentered_blocks import report_unentered

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["SandboxContext", "sandbox", "shared_sandbox"]

S = TypeVar("S", default=Any)


@overload
def sandbox(
    database: DatabaseBase[S],
    /,
    *others: DatabaseBase,
    timeout: float = ...,
    replicas: Collection[Engine] = ...,
    real: bool = ...,
    schema: Schemas = ...,
) -> SandboxContext[S]: ...
@overload
def sandbox(
    *databases: DatabaseBase,
    timeout: float = ...,
    replicas: Collection[Engine] = ...,
    real: bool = ...,
    schema: Schemas = ...,
) -> SandboxContext[Any]: ...
def sandbox(
    *databases: DatabaseBase,
    timeout: float = 10.0,
    replicas: Collection[Engine] = (),
    real: bool = False,
    schema: Schemas = None,
) -> SandboxContext[Any]:
    """Undo all that a test does with *databases*, though it is committed.

    By `with` or `async with`, which give the `Sandbox`. Inside, each database has one
    connection with a transaction around everything, and each unit of work is a
    savepoint in it: COMMIT keeps its work until the end of the sandbox. Units take
    turns: another one waits for *timeout* seconds at most. Engines among *replicas*
    have the connection of the database whose sessions use them.

    It holds for the caller's context, and so for what the test calls and starts; others
    need `Sandbox.headers`, `Sandbox.allow()` or `Sandbox.shared()`, or get a
    `SandboxError`. Any number of sandboxes may be open at the same time.

    With *real*, each database is instead a new one of the test's own, and nothing is a
    savepoint. *schema* is what it contains: a `MetaData` or several; a function of a
    `Connection`, also with a key, `(function, "key")`; Alembic's `Config`; or a mapping
    of databases to these. That of the first sandbox of a database holds for all.

    Raises `SandboxError` at the end if something was done that a sandbox can't show:
    the transaction around everything was ended, or an independent unit inside another
    one was committed and the outer one rolled back.

    .. versionadded:: 0.2
    """
    if not databases:
        raise UsageError("sandbox() has no database; give at least one")
    for each in databases:
        if not isinstance(each, DatabaseBase):
            raise UsageError(
                f"{described(each)} is no database; give a Database or AsyncDatabase"
            )
    options = SandboxOptions(
        timeout=timeout, replicas=replicas, real=real, schema=schema
    )
    return SandboxContext(databases, options)


class _NotEntered(UsageError, AttributeError):
    """What `sandbox()` returns was used as if it was the sandbox."""


class SandboxContext(Generic[S]):
    """Opens one sandbox, by `with` or `async with`: see `testing.sandbox()`."""

    def __init__(
        self, databases: Sequence[DatabaseBase], options: SandboxOptions
    ) -> None:
        self._databases = databases
        self._options = options
        self._was_opened = False
        self._entered: list[tuple[Sandbox[S], AbstractContextManager[None]]] = []

    def __enter__(self) -> Sandbox[S]:
        return self._enter(self.open())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._leaving(error) as box:
            box.close()

    async def __aenter__(self) -> Sandbox[S]:
        self._was_opened = True
        portal = Portal(asyncio.get_running_loop(), self._options.timeout)
        lent = await asyncio.to_thread(self._take) if self._options.real else {}
        return self._enter(self._open(portal, lent))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._leaving(error) as box:
            await greenlet_spawn(box.close)

    def open(self) -> Sandbox[S]:
        """Open the sandbox, to which no context belongs yet."""
        self._was_opened = True
        is_async = any(core_of(each).is_async for each in self._databases)
        portal = own_portal(self._options.timeout) if is_async else None
        return self._open(portal, self._take() if self._options.real else {})

    def _take(self) -> Mapping[DatabaseCore, LentDatabase]:
        return take_all(self._databases, self._options.schema)

    def _open(
        self, portal: Portal | None, lent: Mapping[DatabaseCore, LentDatabase]
    ) -> Sandbox[S]:
        box = Sandbox[S](self._databases, portal, self._options, lent)
        open_membership(box.membership)
        return box

    def _enter(self, box: Sandbox[S]) -> Sandbox[S]:
        around = inside(box.membership)
        around.__enter__()
        self._entered.append((box, around))
        return box

    @contextmanager
    def _leaving(self, error: BaseException | None) -> Iterator[Sandbox[S]]:
        box, around = self._entered.pop()
        try:
            yield box
        finally:
            with suppress(ValueError):  # entered in another context: a fixture's
                around.__exit__(None, None, None)
        report(box.check, error)

    def __del__(self) -> None:
        if not self._was_opened:
            report_unentered("sandbox()")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if name.startswith("_") or not hasattr(Sandbox, name):
                raise AttributeError(f"'SandboxContext' object has no {name!r}")
            raise _NotEntered(
                f"sandbox() returns a context manager, and the sandbox has {name!r}: "
                f"write `with sandbox(db) as box:`, or `async with`, and box.{name}"
            )


@contextmanager
def shared_sandbox(opening: SandboxContext[S]) -> Iterator[Sandbox[S]]:
    """Open a sandbox for all that belongs to none, in the block.

    No context belongs to it: one that a fixture sets may last longer than its test, as
    it is that of everything that is started meanwhile.
    """
    box = opening.open()
    try:
        with box.shared():
            yield box
    finally:
        box.close()
    box.check()

"""Which sandbox a caller belongs to.

By the header of its request, else by its context, which tasks and threads inherit, else
the shared one. Nothing else reaches a database that some test has in a sandbox.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from http.cookies import CookieError, SimpleCookie
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

from sqlalchemy import Engine

from .._concurrency.fork import renew_after_fork
from .._driver.sqlalchemy_internals import root_engine
from .._engine.address import address_of
from .._real_databases.routes import Route, follow_routes_of
from .._session.database_core import DatabaseCore
from .._session.factory import SessionFactory
from .._session.redirection import redirection
from .failure import SandboxError

__all__ = [
    "HEADER",
    "Membership",
    "close_membership",
    "inside",
    "is_undone",
    "open_membership",
    "shared_by_all",
    "targets_here",
]

HEADER = "x-unitwork-sandbox"
"""The name of the header, and of the cookie, that names a sandbox."""

_HEADER = HEADER.encode()

_NO_SANDBOX = (
    "this uses database {name!r}, which a test has in a sandbox, but it belongs to "
    "none: it has neither the context of the test nor the header of its sandbox. Send "
    "`box.headers` with the request; in a thread or task of your own write "
    "`with box.allow():`; or let the sandbox be everyone's: `with box.shared():`"
)
_CLOSED = "the sandbox to which this belongs is closed: its test is over"
_ALREADY_SHARED = (
    "another sandbox of the same database is shared by all; only one can be"
)


class SandboxOfMember(Protocol):
    """A sandbox, as far as its members are concerned."""

    def factory_of(self, database: DatabaseCore) -> SessionFactory | None:
        """The factory of *database*; `None` if it is not in the sandbox."""
        ...

    def fail(self, error: SandboxError) -> SandboxError:
        """Record what must fail the test."""
        ...

    def route_of(self, engine: Engine) -> Route | None:
        """The real database that *engine* connects to; `None` if that is its own."""
        ...


class Membership:
    """What its members know one sandbox by, for as long as that is open."""

    __slots__ = ("databases", "engines", "target", "token")

    def __init__(
        self,
        target: SandboxOfMember,
        databases: Collection[DatabaseCore],
        engines: Iterable[Engine] = (),
    ) -> None:
        self.target: SandboxOfMember | None = target
        self.databases = tuple(databases)
        self.engines = WeakSet(engines)
        """Those with a route: see `SandboxOfMember.route_of()`."""
        self.token = _sign(next(_numbers))

    @property
    def headers(self) -> dict[str, str]:
        return {HEADER: self.token}


_numbers = itertools.count(1)
_secret = secrets.token_bytes(32)
_here: ContextVar[tuple[Membership, ...]] = ContextVar("unitwork_sandbox", default=())
"""Those around the caller, innermost first."""
_lock = renew_after_fork(Lock())
_open: dict[str, Membership] = {}
_shared: list[Membership] = []


def _sign(number: int) -> str:
    digest = hmac.new(_secret, str(number).encode(), hashlib.sha256).hexdigest()
    return f"{number}.{digest[:32]}"


def open_membership(membership: Membership) -> None:
    """Let callers find *membership*."""
    with _lock:
        _open[membership.token] = membership
        for database in membership.databases:
            database.redirect = _redirect  # from now on: tasks may outlive their test
        redirection.enter = _enter


def close_membership(membership: Membership) -> None:
    """Close the way to *membership*; a context may still refer to it."""
    with _lock:
        _open.pop(membership.token, None)
        membership.target = None
        if not _open:
            redirection.enter = None


@contextmanager
def inside(membership: Membership) -> Iterator[None]:
    """Let what is called here, and what it starts, belong to the sandbox."""
    with _inside_all((membership,)):
        yield


@contextmanager
def _inside_all(memberships: tuple[Membership, ...]) -> Iterator[None]:
    token = _here.set((*memberships, *_here.get()))
    try:
        yield
    finally:
        _here.reset(token)


@contextmanager
def shared_by_all(membership: Membership) -> Iterator[None]:
    """Let everything that belongs to no sandbox belong to this one."""
    with _lock:
        taken = {each for other in _shared for each in other.databases}
        if taken.intersection(membership.databases):
            raise SandboxError(_ALREADY_SHARED)
        _shared.append(membership)
    try:
        yield
    finally:
        with _lock:
            _shared.remove(membership)


def targets_here() -> Iterator[SandboxOfMember]:
    """The sandboxes that the caller belongs to, the closest first."""
    for membership in (*_here.get(), *_shared):
        if membership.target is not None:
            yield membership.target


def is_undone(database: DatabaseCore) -> bool:
    """Whether what the caller stores in *database* ends with a sandbox."""
    engine = root_engine(database.own_factory.engine)
    return any(
        target.factory_of(database) is not None or target.route_of(engine) is not None
        for target in targets_here()
    )


def _redirect(database: DatabaseCore) -> SessionFactory:
    for membership in (*_here.get(), *_shared):
        if database not in membership.databases:
            continue
        if membership.target is None:
            raise SandboxError(_CLOSED)
        factory = membership.target.factory_of(database)
        if factory is not None:
            return factory
    if any(database in each.databases for each in list(_open.values())):
        raise SandboxError(_NO_SANDBOX.format(name=database.name))
    return database.own_factory


def _route_of(engine: Engine) -> Route | None:
    """The route of *engine* here.

    Raises `SandboxError` if only others have it in a sandbox, or a test that is over.
    """
    for membership in (*_here.get(), *_shared):
        if engine not in membership.engines:
            continue
        if membership.target is None:
            raise SandboxError(_CLOSED)
        return membership.target.route_of(engine)
    for membership in list(_open.values()):
        if membership.target is not None and membership.target.route_of(engine):
            raise SandboxError(_NO_SANDBOX.format(name=address_of(engine.url)))
    return None


follow_routes_of(_route_of)


def _enter(scope: Mapping[str, Any]) -> AbstractContextManager[object] | None:
    """The context of a request: the sandbox that it names, or that is shared by all."""
    token = _token_in(scope)
    if token is None:
        return _inside_shared(scope)
    membership = _open.get(token)
    if membership is None:
        raise SandboxError(_refusal(token))
    return None if membership in _here.get()[:1] else inside(membership)


def _inside_shared(scope: Mapping[str, Any]) -> AbstractContextManager[object] | None:
    """What a request starts belongs to its own test, also once another is shared."""
    if not _shared or _here.get() or scope["type"] == "lifespan":
        return None
    return _inside_all(tuple(_shared))


def _refusal(token: str) -> str:
    number, _, _ = token.partition(".")
    known = token.isascii() and number.isdecimal()
    if known and hmac.compare_digest(token, _sign(int(number))):
        return f"the sandbox that {HEADER} names is closed: its test is over"
    return f"{HEADER} names no sandbox of this process"


def _token_in(scope: Mapping[str, Any]) -> str | None:
    cookie = ""
    for name, value in scope.get("headers") or ():
        if name == _HEADER:
            token: str = value.decode("latin-1")
            return token
        if name == b"cookie" and _HEADER in value:
            cookie = value.decode("latin-1")
    if not cookie:
        return None
    try:
        found = SimpleCookie(cookie).get(HEADER)
    except CookieError:
        return None
    return None if found is None else found.value

"""The fence: makes the sessions of a class refuse work after the end of their unit.

It is written once, for the sync `Session`; an `AsyncSession` gets it through its
`sync_session_class`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction

from .._driver.savepoint_internals import NotesDeletions
from ..errors import UsageError
from .after_statement import BeginsBefore
from .connecting import bind_for
from .dropped_work import drop, has_changes
from .misuse import CALLED
from .operations import rollback
from .savepoint import transaction_begun, watch_again
from .session_events import EVENTS, REPORTS
from .state import Access
from .unit_session import UnitSession

__all__ = ["fence", "fenced", "reporting"]

_OPEN, _CLOSED = Access.OPEN, Access.CLOSED
_BEGUN_ALREADY = (
    "the session of a unit of work begins by its first statement, here perhaps that of "
    "a dependency; write `session.begin_nested()` for a savepoint, or "
    'db.transaction(nested="join") for a part of the unit'
)


class _Fenced(NotesDeletions, BeginsBefore):
    """Added to a session class: refuses work once the unit of the session has ended."""

    closes_plainly: bool
    """Whether no method that `close()` calls is the application's own."""
    flushes_plainly: bool

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        unit_session = self.unitwork_session
        if unit_session is None:
            return super().get_bind(*args, **kwargs)
        if unit_session.access is not _OPEN:
            unit_session.check()
        bind = super().get_bind(*args, **kwargs)
        is_connected = unit_session.connections and unit_session.goes_on_with is bind
        if is_connected and self.in_transaction():
            return bind  # as `bind_for()` for a statement that does not connect
        statement = kwargs.get("clause", not args and not kwargs)
        return bind_for(unit_session, bind, statement)

    def begin(self, nested: bool = False) -> SessionTransaction:
        try:
            transaction = super().begin(nested)
        except InvalidRequestError as error:
            if self.unitwork_session is not None and self.in_transaction():
                error.add_note(_BEGUN_ALREADY)
            raise
        if self.unitwork_session is not None:
            transaction_begun(self.unitwork_session, transaction)
        return transaction

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise UsageError(CALLED)

    # `close()` and `reset()` are left to the unit while it lasts.

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.unitwork_session is not None:
            self.unitwork_session.ends.left_by_error = error is not None
        super().__exit__(kind, error, traceback)

    def close(self) -> None:
        unit_session = self.unitwork_session
        is_over = unit_session is None or unit_session.access is _CLOSED
        if is_over or not _is_kept_open(self):
            result: object = super().close()
            if result is not None and inspect.iscoroutine(result):  # of an override
                result.close()
                Session.close(self)

    def reset(self) -> None:
        if not _is_kept_open(self):
            super().reset()

    def invalidate(self) -> None:
        if self.in_transaction():
            drop(self, "session.invalidate() was called")
        elif _is_kept_open(self):
            return
        super().invalidate()

    def expunge_all(self) -> None:
        ours = self.unitwork_session
        if ours is not None and ours.access is _OPEN and has_changes(self):
            drop(self, "session.expunge_all() has dropped changes before their flush")
        super().expunge_all()
        watch_again(ours)

    def flush(self, *args: Any, **kwargs: Any) -> None:
        # SQLAlchemy would report a session that is being rolled back as well.
        if (unit_session := self.unitwork_session) is None:
            super().flush(*args, **kwargs)
            return
        if unit_session.access is not _OPEN:
            unit_session.check()
        unit_session.activity.flush(super().flush, *args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        # Its objects are detached: SQLAlchemy would report that, not the end.
        if self.unitwork_session is not None:
            self.unitwork_session.check()
        super().refresh(*args, **kwargs)

    def _autobegin_t(self, begin: bool = False) -> SessionTransaction:
        # Private to SQLAlchemy, the same in 2.0 and 2.1. Without it `add()` after the
        # end would still be refused (`close_resets_only=False`), with another error.
        unit_session = self.unitwork_session
        if unit_session is not None and not self.in_transaction():
            if unit_session.access is not _OPEN:
                unit_session.check()
            if unit_session.activity.is_reserved:
                unit_session.activity.check()
            if unit_session.has_begun or unit_session.permit is not None:
                unit_session.begin()
            else:  # there is nothing to reset yet
                unit_session.has_begun = True
        return super()._autobegin_t(begin)


@cache
def fenced(session_class: type[Session]) -> type[Session]:
    """Derive from *session_class* the class of the sessions of units."""
    closing = (session_class.close, session_class.expunge_all)
    members = {"closes_plainly": closing == (Session.close, Session.expunge_all)}
    members["flushes_plainly"] = session_class.flush is Session.flush
    bases = (_Fenced, session_class)
    made: type[Session] = type(session_class.__name__, bases, members)
    for name, listener in EVENTS.items():
        event.listen(made, name, listener)
    return made


def fence(session: Session) -> None:
    """Make a *session*, which its application has made, one of `fenced()`."""
    if isinstance(session, _Fenced):
        return
    has_listeners = "dispatch" in vars(session)
    its_class: Any = type(session)  # mypy takes a class for no key of a cache
    session.__class__ = fenced(its_class)
    for name, listener in EVENTS.items() if has_listeners else ():
        event.listen(session, name, listener)


@contextmanager
def reporting(session: Session) -> Iterator[None]:
    """Let a session made by a test report its commits and rollbacks to its unit."""
    if isinstance(session, _Fenced):
        yield
        return
    for name, listener in REPORTS.items():
        event.listen(session, name, listener)
    ends = {name: _unless_kept_open(session, name) for name in ("close", "reset")}
    vars(session).update(ends)
    try:
        yield
    finally:
        for name in ends:
            del vars(session)[name]
        for name, listener in REPORTS.items():
            event.remove(session, name, listener)


def _unless_kept_open(session: Session, name: str) -> Callable[[], None]:
    def end() -> None:
        if not _is_kept_open(session):
            getattr(type(session), name)(session)

    return end


def _is_kept_open(session: Session) -> bool:
    """Whether `close()` does nothing; after an error in a `with` it has rolled back."""
    unit_session: UnitSession | None = getattr(session, "unitwork_session", None)
    if unit_session is None or unit_session.access is _CLOSED:
        return False
    if unit_session.ends.left_by_error:
        unit_session.ends.left_by_error = False
        if unit_session.access is _OPEN:
            rollback(session)
    return True

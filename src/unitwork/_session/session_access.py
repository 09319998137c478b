"""Whether the session of a unit may be used now, and its permit to connect."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from ..errors import SessionEndedError, UsageError
from .activity import Activity
from .owner import SessionOwner
from .permit import Permit
from .state import Access

__all__ = ["SessionAccess"]

_OPEN, _CLOSED = Access.OPEN, Access.CLOSED
_ENDED = (
    "this session's unit of work has ended ({ended}). For work after the response (a "
    "background task, a task of your own) or in a hook, open a unit of its own: "
    "`{keyword} db.transaction() as session:`"
)
_OUTSIDE = (
    "this session is used inside `unit.outside({what!r})`, or beside it in another "
    "task, and its connection is released for that: move the statement, flush or lazy "
    "load before or after that block, or give it a unit of its own: `db.transaction()`"
)


class SessionAccess:
    """The part of a `UnitSession` that refuses work, and lets it connect."""

    __slots__ = (
        "access",
        "activity",
        "is_async",
        "outside_of",
        "owner",
        "permit",
        "sync_session",
    )

    access: Access
    activity: Activity
    is_async: bool
    outside_of: str
    owner: SessionOwner[Any]
    permit: Permit | None
    sync_session: Session

    @property
    def in_transaction(self) -> bool:
        return self.sync_session.in_transaction()

    def check(self) -> None:
        """Raise unless the session may be used.

        `SessionEndedError` if its unit has ended, `UsageError` in an `outside()` block.
        """
        if self.access is Access.OUTSIDE:
            raise UsageError(_OUTSIDE.format(what=self.outside_of))
        if self.access is not _OPEN:
            ended = self.owner.describe_end()
            keyword = "async with" if self.is_async else "with"
            raise SessionEndedError(_ENDED.format(ended=ended, keyword=keyword))

    def check_statement(self) -> None:
        """Raise unless a statement may be executed, by whichever task or thread.

        `SessionEndedError` once the unit has ended; `IllegalStateChangeError` while its
        COMMIT is under way. The ending itself still has ROLLBACK TO SAVEPOINT to send.
        """
        if self.access is not _OPEN and not self.activity.is_own_step:
            self.check()
        self.activity.check()

    def refuse(self) -> None:
        """Refuse work from now on, and release a permit that is not in use."""
        if self.access is not _CLOSED:
            self.access = Access.REFUSED
            if self.permit is not None:
                self.release_unused_permit()

    def reopen(self) -> None:
        if self.access is not _CLOSED:
            self.access = _OPEN
            self.activity.is_reserved = False

    def enter_outside(self, what: str) -> None:
        """Refuse work until `leave_outside()`, or until the unit ends."""
        if self.access is _OPEN:
            self.access, self.outside_of = Access.OUTSIDE, what

    def leave_outside(self) -> None:
        if self.access is Access.OUTSIDE:
            self.access = _OPEN

    # Its permit

    @property
    def holds_permit(self) -> bool:
        return self.permit is not None and self.permit.is_held

    async def acquire_permit(self) -> None:
        """Wait on the event loop for the permit to use a connection."""
        if self.permit is not None and await self.permit.acquire():
            self.check_permit()

    def acquire_permit_to_connect(self) -> None:
        """Wait for the permit, in a greenlet or thread; it may have been released."""
        if self.permit is None or self.permit.is_held:
            return
        if self.is_async:
            acquired = self.permit.acquire_in_greenlet()
        else:
            acquired = self.permit.acquire_in_thread()
        if acquired:
            self.check_permit()

    def check_permit(self) -> None:
        if self.access is not _OPEN:  # the unit ended while this thread waited
            self.release_permit()
            self.check()

    def release_unused_permit(self) -> None:
        if self.permit is not None and not self.in_transaction:
            self.permit.release()

    def release_permit(self) -> None:
        if self.permit is not None:
            self.permit.release()

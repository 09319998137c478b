"""What a unit is asked for besides its route's options, and whether in time."""

from __future__ import annotations

from ._engine.begin import TransactionCharacteristics
from ._unit import UnitOfWork
from .errors import UsageError
from .options import NO_OPTIONS, TransactionOptions

__all__ = ["ask", "check_in_time", "join"]

_NOTHING = TransactionCharacteristics()


def ask(unit: UnitOfWork, options: TransactionOptions) -> None:
    """Ask for *options*, for all that is yet to begin."""
    unit._check_open()
    before = unit._asked
    unit._asked = before | options
    try:
        check_in_time(unit)
    except UsageError:
        unit._asked = before
        raise


def join(unit: UnitOfWork, options: TransactionOptions) -> None:
    """Let a block inside ask for *options*, if they don't contradict ours."""
    if options is NO_OPTIONS:
        return
    ours, theirs = unit._options.begin, options.begin
    for key, theirs_is in zip(TransactionCharacteristics._fields, theirs, strict=True):
        given = getattr(options, key, None)
        if given is not None and getattr(unit._options, key) not in (None, given):
            raise UsageError(
                f"this block asks for {key}={theirs_is!r}, and the unit around it, "
                f"in whose transaction it is, for {key}={getattr(ours, key)!r}; "
                'say the same, or open a block of its own: nested="own"'
            )
    ask(unit, options)


def check_in_time(unit: UnitOfWork) -> None:
    """Raise `UsageError` if what is asked for now came too late for a session."""
    for source, lease in (unit._leases or {}).items():
        if lease.owned and lease.open and lease.connections:
            asks = unit._asks(lease)
            if asks != lease.asks:
                raise UsageError(_too_late(source.name, asks, lease.asks))


def _too_late(
    name: str,
    asks: TransactionCharacteristics | None,
    begun: TransactionCharacteristics | None,
) -> str:
    now, before = asks or _NOTHING, begun or _NOTHING
    changed = [
        f"{key}={getattr(now, key)!r}"
        for key in TransactionCharacteristics._fields
        if getattr(now, key) != getattr(before, key)
    ]
    return (
        f"{', '.join(changed)} comes too late: the transaction in database {name!r} "
        "has begun without it. Say so before the first statement, or of the unit around"
    )

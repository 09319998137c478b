"""Options that are set inside a unit: refused once its transaction has begun."""

from __future__ import annotations

from .._engine.begin import TransactionCharacteristics
from ..errors import UsageError
from ..options import NO_OPTIONS, TransactionOptions
from .unit import Unit

__all__ = ["add_options", "check_in_time", "join"]

_DEFAULTS = TransactionCharacteristics()


def add_options(unit: Unit, options: TransactionOptions) -> None:
    """Apply *options* to the transactions that *unit* has yet to begin."""
    unit.check_open()
    before = unit.own_options
    unit.own_options = before | options
    try:
        check_in_time(unit)
    except UsageError:
        unit.own_options = before
        raise


def join(unit: Unit, options: TransactionOptions) -> None:
    """Add the *options* of a block inside *unit*, unless they contradict its own."""
    if options is NO_OPTIONS:
        return
    ours, theirs = unit.options.characteristics, options.characteristics
    for key, theirs_is in zip(TransactionCharacteristics._fields, theirs, strict=True):
        given = getattr(options, key, None)
        if given is not None and getattr(unit.options, key) not in (None, given):
            raise UsageError(
                f"this block sets {key}={theirs_is!r}, and the enclosing unit, whose "
                f"transaction it joins, {key}={getattr(ours, key)!r}; give the same, "
                'or open a transaction of its own: nested="own"'
            )
    add_options(unit, options)


def check_in_time(unit: Unit) -> None:
    """Raise `UsageError` if a transaction has begun with other characteristics."""
    for database, session in unit.sessions.items():
        if session.owned and session.in_transaction and session.connections:
            wanted = unit.characteristics(session)
            if _begun(wanted) != _begun(session.begun_with):
                raise UsageError(_too_late(database.name, wanted, session.begun_with))


def _begun(
    characteristics: TransactionCharacteristics | None,
) -> TransactionCharacteristics:
    """Those of a transaction that has begun: the release mode is of no account."""
    return (characteristics or _DEFAULTS)._replace(release=_DEFAULTS.release)


def _too_late(
    name: str,
    wanted: TransactionCharacteristics | None,
    begun_with: TransactionCharacteristics | None,
) -> str:
    now, before = _begun(wanted), _begun(begun_with)
    changed = [
        f"{key}={getattr(now, key)!r}"
        for key in TransactionCharacteristics._fields
        if getattr(now, key) != getattr(before, key)
    ]
    return (
        f"{', '.join(changed)} comes too late: the transaction in database {name!r} "
        "has begun without it; set it before the first statement, or on the outer unit"
    )

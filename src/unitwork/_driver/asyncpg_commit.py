"""COMMIT of asyncpg in its commonest form: the answer is read, and nothing checked.

What SQLAlchemy's adapter and asyncpg's transaction do around it, in nine calls, is done
here in two. The private parts of both that this needs are used here only.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.util import await_only

__all__ = ["can_commit", "commit", "is_idle"]


def can_commit(adapter: Any, driver: Any) -> bool:
    """Whether SQLAlchemy's transaction is open, and the outermost one of *driver*.

    *adapter* is SQLAlchemy's, of the asyncpg connection *driver*.
    """
    transaction = adapter._transaction
    if transaction is None or getattr(driver, "_top_xact", None) is not transaction:
        return False
    protocol = driver._protocol
    if protocol is None:  # it was terminated
        return False
    begun: bool = protocol.is_connected() and protocol.is_in_transaction()
    return begun


def is_idle(adapter: Any, driver: Any) -> bool:
    """Whether neither SQLAlchemy nor *driver* has a transaction open."""
    if adapter._transaction is not None:
        return False
    protocol = getattr(driver, "_protocol", None)
    return protocol is not None and not protocol.is_in_transaction()


def commit(adapter: Any, driver: Any) -> bool:
    """Send COMMIT; return whether PostgreSQL has committed, and not rolled back.

    Raises what the adapter's own `commit()` raises.
    """
    try:
        tag = await_only(_commit(adapter, driver))
    except Exception as error:
        adapter._handle_exception(error)
        raise
    return tag == "COMMIT"


async def _commit(adapter: Any, driver: Any) -> str:
    try:
        driver._top_xact = None  # as asyncpg's transaction does, before it sends
        tag: str = await driver.execute("COMMIT;")
        return tag
    finally:
        adapter._transaction = None
        if hasattr(adapter, "_started"):  # SQLAlchemy 2.0
            adapter._started = False

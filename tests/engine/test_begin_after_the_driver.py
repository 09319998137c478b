"""What the driver did before the first statement stays a part of the transaction."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.driver import send
from support.flavours import POSTGRESQL, Flavour, only

pytestmark = pytest.mark.anyio

OWN_LOCKS = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""


@only(*POSTGRESQL)
async def test_a_setting_is_kept_by_a_lock_that_follows(flavour: Flavour) -> None:
    def body(session: Session) -> str | None:
        send(session, "SET LOCAL app.tenant = 'mine'")
        session.execute(text("LOCK TABLE item IN SHARE MODE"))
        return session.scalar(text("SELECT current_setting('app.tenant', true)"))

    assert await flavour.work(body) == "mine"


@only(*POSTGRESQL)
async def test_so_is_a_lock(flavour: Flavour) -> None:
    def body(session: Session) -> int | None:
        send(session, "SELECT pg_advisory_xact_lock(1)")
        session.execute(text("LOCK TABLE item IN SHARE MODE"))
        return session.scalar(text(OWN_LOCKS))

    assert await flavour.work(body) == 1

"""Transaction options in a sandbox: applied where a savepoint can have them."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from support.flavours import MARIADB, POSTGRESQL, Flavour, everywhere, only
from support.models import add_item
from support.sandboxes import count
from unitwork import CommitUnknownError, ReadOnlyError, UsageError
from unitwork.testing import CommitFault, Sandbox, commit_faults, no_waits

pytestmark = pytest.mark.anyio


@everywhere
async def test_read_only_refuses_to_write(flavour: Flavour, box: Sandbox) -> None:
    with pytest.raises(ReadOnlyError):
        await flavour.work(add_item, read_only=True)
    assert await flavour.work(count, read_only=True) == 0
    await flavour.work(add_item)

    assert await flavour.work(count) == 1


@only(*POSTGRESQL, *MARIADB)
async def test_autocommit_refuses_to_write(flavour: Flavour, box: Sandbox) -> None:
    with pytest.raises(ReadOnlyError):
        await flavour.work(add_item, isolation_level="AUTOCOMMIT")
    await flavour.work(text_of_one, isolation_level="AUTOCOMMIT")
    await flavour.work(add_item)

    assert await flavour.work(count) == 1


def text_of_one(session: Session) -> None:
    assert session.scalar(text("SELECT 1")) == 1


@only(*POSTGRESQL)
async def test_an_isolation_level_has_no_effect(flavour: Flavour, box: Sandbox) -> None:
    await flavour.work(add_item, isolation_level="SERIALIZABLE", deferrable=True)

    assert await flavour.work(count, isolation_level="REPEATABLE READ") == 1


@only("sqlite3", "aiosqlite")
async def test_what_a_database_does_not_have_is_refused(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(UsageError, match="sqlite has no timeout"):
        await flavour.work(count, timeout=1.0)


@only(*POSTGRESQL)
async def test_a_time_limit_holds_for_its_unit_alone(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(DBAPIError, match="statement timeout"):
        await flavour.work(sleep, timeout=0.01)
    await flavour.work(text_of_one, timeout=30.0)

    assert await flavour.work(statement_timeout) == "0"


def sleep(session: Session) -> None:
    session.execute(text("SELECT pg_sleep(10)"))


def statement_timeout(session: Session) -> str:
    return str(session.scalar(text("SHOW statement_timeout")))


@only(*POSTGRESQL)
async def test_a_setting_of_the_transaction_ends_with_its_unit(
    flavour: Flavour, box: Sandbox
) -> None:
    await flavour.work(set_tenant)

    assert await flavour.work(tenant) in (None, "")


def set_tenant(session: Session) -> None:
    session.execute(text("SELECT set_config('app.tenant', 'one', true)"))
    session.execute(text("SET LOCAL work_mem = '1MB'"))


def tenant(session: Session) -> str | None:
    assert session.scalar(text("SHOW work_mem")) == "4MB"
    return session.scalar(text("SELECT current_setting('app.tenant', true)"))


@everywhere
async def test_a_commit_fails_on_request(flavour: Flavour, box: Sandbox) -> None:
    refused = IntegrityError("COMMIT", None, Exception("no"))
    with commit_faults(flavour.db, refused), pytest.raises(IntegrityError):
        await flavour.work(add_item)

    assert await flavour.work(count) == 0


@only(*POSTGRESQL)
async def test_a_commit_in_doubt_is_verified(flavour: Flavour, box: Sandbox) -> None:
    with commit_faults(flavour.db, CommitFault.COMMITTED):
        await flavour.work(add_item)
    rolled_back = commit_faults(flavour.db, CommitFault.ROLLED_BACK)
    with rolled_back, pytest.raises(OperationalError):
        await flavour.work(lambda session: add_item(session, "two"))

    assert await flavour.work(count) == 1


@only(*MARIADB)
async def test_a_commit_in_doubt_that_can_not_be_verified_is_unknown(
    flavour: Flavour, box: Sandbox
) -> None:
    lost = commit_faults(flavour.db, CommitFault.COMMITTED)
    with lost, pytest.raises(CommitUnknownError):
        await flavour.work(add_item)

    assert await flavour.work(count) == 1


@everywhere
async def test_a_unit_is_retried(flavour: Flavour, box: Sandbox) -> None:
    attempts: list[int] = []

    def work(session: Session) -> None:
        attempts.append(count(session))
        add_item(session)

    async def awork(session: object) -> None:
        await session.run_sync(work)  # type: ignore[attr-defined]  # an AsyncSession

    class Conflict(Exception):
        sqlstate = "40001"

    conflict = OperationalError("COMMIT", None, Conflict("deadlock detected"))
    with no_waits(), commit_faults(flavour.db, conflict):
        if flavour.is_async:
            await flavour.db.run(awork, attempts=2)
        else:
            flavour.db.run(work, attempts=2)

    assert attempts == [0, 0]
    assert await flavour.work(count) == 1

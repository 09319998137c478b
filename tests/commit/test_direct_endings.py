"""The direct ending makes the same steps as the plan, whatever fails."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy.orm import Session

from support.both_endings import (
    BODIES,
    CANCELLED_IN_FLUSH,
    FAULTS,
    IN_THREADS,
    KINDS,
    REFUSED,
    Body,
    Endings,
    Kind,
    account_of,
    commits_held,
    natively,
    read,
    write,
    write_slowly,
)
from support.flavours import Flavour, only
from unitwork import DatabaseSettings

pytestmark = pytest.mark.anyio

THREADED = only("psycopg", "pymysql", "sqlite3")

HASTY = DatabaseSettings(commit_timeout=0.1, verify_commit=False)


class Flushing(Session):
    def flush(self, *args: Any, **options: Any) -> None:
        if not self.new:
            logging.getLogger("application").warning("flush")
        super().flush(*args, **options)


@pytest.fixture
def endings(monkeypatch: pytest.MonkeyPatch) -> Endings:
    return Endings(monkeypatch)


async def check_both(
    flavour: Flavour,
    endings: Endings,
    caplog: pytest.LogCaptureFixture,
    body: Body,
    fault: str = "none",
    kind: Kind = natively,
) -> None:
    faults = FAULTS if flavour.is_async else IN_THREADS
    by_plan = await account_of(flavour, body, faults[fault], kind)
    logged = [record.getMessage() for record in caplog.records]
    caplog.clear()

    endings.are_direct = True
    directly = await account_of(flavour, body, faults[fault], kind)

    assert directly == by_plan
    assert [record.getMessage() for record in caplog.records] == logged


@only("asyncpg")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_both_do_the_same(
    flavour: Flavour,
    endings: Endings,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    body: Body,
    kind: Kind,
) -> None:
    await check_both(flavour, endings, caplog, body, fault, kind)


@THREADED
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("fault", IN_THREADS)
async def test_both_do_the_same_in_a_thread(
    flavour: Flavour,
    endings: Endings,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    body: Body,
    kind: Kind,
) -> None:
    await check_both(flavour, endings, caplog, body, fault, kind)


@THREADED
@pytest.mark.parametrize("kind", KINDS)
async def test_both_roll_back_what_is_cancelled_in_the_flush_of_a_thread(
    flavour: Flavour, endings: Endings, kind: Kind
) -> None:
    by_plan = await account_of(flavour, write, CANCELLED_IN_FLUSH, kind)
    endings.are_direct = True
    directly = await account_of(flavour, write, CANCELLED_IN_FLUSH, kind)

    assert directly[-2:] == by_plan[-2:]
    assert directly[-1] == "stored []"


@only("asyncpg", "psycopg", "sqlite3")
@pytest.mark.parametrize("body", [*BODIES, *REFUSED])
async def test_one_connection_is_committed_directly(
    flavour: Flavour,
    endings: Endings,
    caplog: pytest.LogCaptureFixture,
    body: Body,
) -> None:
    await check_both(flavour, endings, caplog, body)
    assert endings.begun_directly == 1


@only("asyncpg")
async def test_both_flush_by_the_method_of_the_application(
    flavour: Flavour, endings: Endings, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"sync_session_class": Flushing}
    another = flavour.another(session_options=options)
    await check_both(another, endings, caplog, read)
    await another.dispose()

    assert "flush" in caplog.text


@only("asyncpg", "psycopg")
async def test_both_abort_a_commit_that_hangs(
    flavour: Flavour, endings: Endings, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = flavour.another(settings=HASTY)
    with commits_held(flavour.url):
        await check_both(impatient, endings, caplog, write_slowly)
    await impatient.dispose()

    assert endings.begun_directly == 1

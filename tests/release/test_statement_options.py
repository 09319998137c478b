"""Release mode "statement": who sets it, and what it can't be combined with."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.asgi import call
from support.databases import check_nothing_is_left
from support.flavours import MARIADB, POSTGRESQL, Flavour, everywhere, only
from support.models import names
from support.releasing import checked_out, releasing
from unitwork import (
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    TransactionOptions,
    UsageError,
    transactional,
)

pytestmark = pytest.mark.anyio

STATEMENT: dict[str, Any] = {"release": "statement"}


@pytest.mark.parametrize(
    "options",
    [
        {"read_only": True},
        {"isolation_level": "SERIALIZABLE"},
        {"isolation_level": "REPEATABLE READ"},
        {"isolation_level": "AUTOCOMMIT"},
        {"timeout": 1.0},
        {"lock_timeout": 1.0},
        {"stream": True},
    ],
    ids=str,
)
def test_options_of_a_transaction_are_refused_beside_it(options: Any) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        TransactionOptions(**STATEMENT, **options)


def test_other_options_are_not() -> None:
    options = {"timeout": math.inf, "deadline": 3.0, "attempts": 2, "read_only": False}
    options |= {"isolation_level": "READ COMMITTED"}

    assert TransactionOptions(**STATEMENT, **options).release == "statement"


@pytest.mark.parametrize("release", ["Statement", "session", 1, True])
def test_there_are_two_modes(release: Any) -> None:
    with pytest.raises(UsageError, match="release is"):
        TransactionOptions(release=release)
    with pytest.raises(UsageError, match="release is"):
        Database("sqlite://", release=release)


def test_a_nearer_option_of_a_transaction_comes_first() -> None:
    merged = TransactionOptions(**STATEMENT) | TransactionOptions(read_only=True)

    assert (merged.release, merged.read_only) == ("transaction", True)


def test_a_limit_further_out_is_not_dropped_in_silence() -> None:
    with pytest.raises(UsageError, match=r"math\.inf"):
        TransactionOptions(timeout=1.0) | TransactionOptions(**STATEMENT)


def test_a_limit_further_out_can_be_lifted() -> None:
    nearer = TransactionOptions(**STATEMENT, timeout=math.inf, read_only=False)
    merged = TransactionOptions(timeout=1.0, read_only=True) | nearer

    assert merged.release == "statement"


async def held_after_a_read(flavour: Flavour, **options: Any) -> int:
    async with flavour.block(**options) as session:
        await flavour.do(session, names)
        return checked_out(flavour)


@only(*POSTGRESQL, "sqlite3", "aiosqlite")
async def test_a_block_can_have_it(flavour: Flavour) -> None:
    assert await held_after_a_read(flavour) == 1
    assert await held_after_a_read(flavour, **STATEMENT) == 0


@pytest.mark.parametrize(
    "options",
    [{"release": "transaction"}, {"read_only": True}, {"lock_timeout": 1.0}],
    ids=str,
)
async def test_a_block_can_do_without(released: Flavour, options: Any) -> None:
    assert await held_after_a_read(released, **options) == 1


@only("asyncpg", "psycopg", "sqlite3")
@pytest.mark.parametrize(
    ("options", "held"),
    [
        (TransactionOptions(), "1 0"),
        (TransactionOptions(**STATEMENT), "0 0"),
        ({"GET": TransactionOptions(**STATEMENT)}, "0 0"),
        (lambda scope: TransactionOptions(**STATEMENT), "0 0"),
    ],
    ids=["none", "all", "by method", "by request"],
)
async def test_applications_and_routes_set_it(
    flavour: Flavour, options: Any, held: str
) -> None:
    def endpoint(session: Session) -> int:
        names(session)
        return checked_out(flavour)

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=options)
    app.get("/as-set")(flavour.endpoint(endpoint))
    app.get("/own")(transactional(**STATEMENT)(flavour.endpoint(endpoint)))
    replies = [await call(app, "GET", path) for path in ("/as-set", "/own")]

    assert " ".join(reply.body.decode() for reply in replies) == held


@only(*POSTGRESQL, *MARIADB)
async def test_a_database_with_snapshots_refuses_it(flavour: Flavour) -> None:
    snapshots = flavour.another(**STATEMENT, isolation_level="REPEATABLE READ")
    with pytest.raises(UsageError, match="'REPEATABLE READ' of database 'default'"):
        await snapshots.work(names)
    await check_nothing_is_left(snapshots)
    await snapshots.dispose()


@only("asyncpg", "psycopg-async")
async def test_a_pooler_in_transaction_mode_needs_one_message_for_each_statement(
    flavour: Flavour,
) -> None:
    settings = DatabaseSettings(transaction_pooler=True)
    pooled = flavour.another(**STATEMENT, settings=settings)
    outcome: Any = "done"
    try:
        await pooled.work(names)
    except UsageError as error:
        outcome = str(error)
    await pooled.dispose()

    assert ("release='statement' can't be used" in outcome) is (
        flavour.name == "asyncpg"
    )


@only(*MARIADB)
async def test_a_level_of_the_unit_is_enough(flavour: Flavour) -> None:
    options = {**STATEMENT, "isolation_level": "READ COMMITTED"}

    assert await held_after_a_read(flavour, **options) == 0


@everywhere
async def test_options_that_come_later_are_as_always(flavour: Flavour) -> None:
    released = releasing(flavour)
    async with released.block() as session:
        await released.do(session, names)
        async with released.block(nested="join", read_only=True) as inner:
            await released.do(inner, names)
            assert checked_out(released) == 1
    await released.dispose()

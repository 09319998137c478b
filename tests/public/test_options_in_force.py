"""Options of a transaction: in force inside it, on each engine, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, insert, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from support.flavours import MARIADB, POSTGRESQL, Flavour, Observer, everywhere, only
from support.models import Child, Item, add_item, names
from support.proxy import Proxy, RoundTrips
from unitwork import (
    ReadOnlyError,
    TransactionOptions,
    UsageError,
    transactional,
)

pytestmark = pytest.mark.anyio

SERIALIZABLE = "SERIALIZABLE"
FEW = only("psycopg", "asyncpg")

SHOWS = {
    "postgresql": """
        SELECT current_setting('transaction_isolation'),
            current_setting('transaction_read_only'),
            current_setting('transaction_deferrable'),
            current_setting('statement_timeout'), current_setting('lock_timeout')
    """,
    "sqlite": """
        SELECT query_only, timeout FROM pragma_query_only, pragma_busy_timeout
    """,
}


def show(session: Session) -> list[Any]:
    """What the database itself says of the transaction."""
    dialect = session.get_bind().dialect.name
    if dialect == "mysql":
        return show_mariadb(session)
    return list(session.execute(text(SHOWS[dialect])).one())


def show_mariadb(session: Session) -> list[Any]:
    """Ask for what began, and for the limits of this very statement."""
    session.execute(text("SELECT 1 FROM item"))
    begun = session.execute(
        text(
            "SELECT isolation_level, access_mode"
            " FROM performance_schema.events_transactions_current"
            " JOIN performance_schema.threads USING (thread_id)"
            " WHERE processlist_id = CONNECTION_ID()"
        )
    ).one()
    limits = text("SELECT @@max_statement_time, @@innodb_lock_wait_timeout")
    return [*begun, *session.execute(limits).one()]


ASKED: dict[str, dict[str, Any]] = {
    "postgresql": {
        "isolation_level": SERIALIZABLE,
        "read_only": True,
        "deferrable": True,
        "timeout": 7.5,
        "lock_timeout": 0.25,
    },
    "sqlite": {"isolation_level": SERIALIZABLE, "read_only": True, "lock_timeout": 2},
    "mysql": {
        "isolation_level": SERIALIZABLE,
        "read_only": True,
        "timeout": 7.5,
        "lock_timeout": 2,
    },
}
IN_FORCE: dict[str, list[Any]] = {
    "postgresql": ["serializable", "on", "on", "7500ms", "250ms"],
    "sqlite": [1, 2000],
    "mysql": [SERIALIZABLE, "READ ONLY", 7.5, 2],
}


def kind(flavour: Flavour) -> str:
    return flavour.sync_engine.dialect.name


@everywhere
async def test_all_options_are_in_force_and_leave_nothing_behind(
    flavour: Flavour,
) -> None:
    one = flavour.another(pool_size=1, max_overflow=0)
    before = await one.work(show)
    inside = await one.work(show, **ASKED[kind(one)])
    after = await one.work(show)
    outside = await one.work(show)
    await one.dispose()

    assert inside == IN_FORCE[kind(flavour)]
    assert before == after == outside
    assert all(a != b for a, b in zip(before, inside, strict=True))


@everywhere
async def test_they_are_in_force_again_after_a_commit_by_hand(flavour: Flavour) -> None:
    def body(session: Session) -> list[Any]:
        show(session)
        session.commit()
        return show(session)

    assert await flavour.work(body, **ASKED[kind(flavour)]) == IN_FORCE[kind(flavour)]


@everywhere
async def test_savepoints_have_them_too(flavour: Flavour) -> None:
    def body(session: Session) -> list[Any]:
        with session.begin_nested():
            return show(session)

    assert await flavour.work(body, **ASKED[kind(flavour)]) == IN_FORCE[kind(flavour)]


@everywhere
async def test_the_database_refuses_to_write_where_it_only_reads(
    flavour: Flavour, observer: Observer
) -> None:
    with pytest.raises(ReadOnlyError, match="read_only=False") as caught:
        await flavour.work(add_item, read_only=True)
    with pytest.raises(ReadOnlyError):
        await flavour.work(
            lambda session: session.execute(text("DELETE FROM item")), read_only=True
        )
    await flavour.work(lambda session: add_item(session) and None)

    assert isinstance(caught.value.__cause__, Exception)
    assert observer.names() == ["one"]


@everywhere
async def test_a_plain_connection_of_the_pool_can_write_after_a_read_only_unit(
    flavour: Flavour, observer: Observer
) -> None:
    one = flavour.another(pool_size=1, max_overflow=0)
    await one.work(names, **ASKED[kind(one)])

    sql = text("INSERT INTO item (name) VALUES ('plain')")
    if one.is_async:
        async with one.db.engine.begin() as connection:
            await connection.execute(sql)
    else:
        with one.db.engine.begin() as connection:
            connection.execute(sql)
    await one.dispose()

    assert observer.names() == ["plain"]


@everywhere
async def test_autocommit_reads_and_refuses_to_write(
    flavour: Flavour, observer: Observer
) -> None:
    def reading(session: Session) -> Any:
        return session.execute(text("SELECT 40 + 2")).scalar_one()

    assert await flavour.work(reading, isolation_level="AUTOCOMMIT") == 42
    with pytest.raises(ReadOnlyError, match="AUTOCOMMIT"):
        await flavour.work(add_item, isolation_level="AUTOCOMMIT")
    await flavour.work(lambda session: add_item(session) and None)
    assert observer.names() == ["one"]


WRITES_ONE = "INSERT INTO item (name) VALUES ('one')"


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    "statement",
    [
        text(f"WITH made AS ({WRITES_ONE} RETURNING id) SELECT * FROM made"),
        text(f"EXPLAIN ANALYZE {WRITES_ONE}"),
        select(insert(Item).values(name="one").returning(Item.id).cte()),
    ],
)
async def test_autocommit_refuses_a_write_in_disguise(
    flavour: Flavour, observer: Observer, statement: Any
) -> None:
    with pytest.raises(ReadOnlyError, match="AUTOCOMMIT"):
        await flavour.work(lambda s: s.execute(statement), isolation_level="AUTOCOMMIT")

    assert observer.names() == []


# Wherever the engine comes from


def made_by_hand(flavour: Flavour) -> Any:
    create = create_async_engine if flavour.is_async else create_engine
    return create(flavour.url)


def serving(flavour: Flavour, source: Any) -> Flavour:
    return replace(flavour, db=type(flavour.db)(source))


@everywhere
async def test_on_an_engine_that_somebody_else_has_made(
    flavour: Flavour, observer: Observer
) -> None:
    engine = made_by_hand(flavour)
    late = serving(flavour, lambda: engine)
    before = await late.work(show)

    assert await late.work(show, **ASKED[kind(flavour)]) == IN_FORCE[kind(flavour)]
    with pytest.raises(ReadOnlyError):
        await late.work(add_item, read_only=True)
    assert await late.work(show) == before
    await late.work(lambda session: add_item(session) and None)
    await late.dispose()
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
async def test_on_each_engine_of_a_session_that_has_several(flavour: Flavour) -> None:
    engines = [made_by_hand(flavour), made_by_hand(flavour)]
    make: Any = async_sessionmaker if flavour.is_async else sessionmaker
    binds = dict(zip((Item, Child), engines, strict=True))
    several = serving(flavour, make(engines[0], binds=binds))

    def ask_both(session: Session) -> list[Any]:
        return [
            [
                *session.execute(
                    text(SHOWS["postgresql"]), bind_arguments={"mapper": mapper}
                ).one(),
            ]
            for mapper in (Item, Child)
        ]

    inside = await several.work(ask_both, **ASKED["postgresql"])
    after = await several.work(ask_both)
    for engine in engines:
        await serving(flavour, engine).dispose()

    assert inside == [IN_FORCE["postgresql"]] * 2
    assert after[0] == after[1] != inside[0]


@only("sqlite3", "aiosqlite")
@pytest.mark.parametrize(("option", "value"), [("deferrable", True), ("timeout", 1.0)])
async def test_an_engine_that_lacks_an_option_says_so(
    flavour: Flavour, option: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=f"sqlite has no {option}"):
        await flavour.work(names, **{option: value})


@only(*MARIADB)
async def test_mariadb_knows_nothing_of_deferrable(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match=r"(mysql|mariadb) has no deferrable"):
        await flavour.work(names, deferrable=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isolation_level": "CHAOS"}, "CHAOS"),
        ({"isolation_level": 7}, "7"),
        ({"timeout": 0}, "timeout is 0"),
        ({"lock_timeout": float("nan")}, "lock_timeout"),
        ({"deadline": -1}, "deadline is -1"),
        ({"attempts": 0}, "attempts is 0"),
        ({"commit_when": "always"}, "commit_when"),
        ({"isolation_level": "AUTOCOMMIT", "timeout": 1}, "timeout"),
    ],
)
def test_nonsense_is_refused_when_it_is_said(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        TransactionOptions(**options)
    with pytest.raises(UsageError, match=message):
        transactional(**options)


@only("sqlite3", "aiosqlite")
async def test_a_block_knows_only_what_a_transaction_begins_with(
    flavour: Flavour,
) -> None:
    with pytest.raises(UsageError, match="no option attempts"):
        flavour.db.transaction(attempts=3)


def test_the_nearer_option_wins_and_the_others_stay() -> None:
    outer = TransactionOptions(isolation_level="REPEATABLE READ", timeout=5, attempts=2)
    inner = TransactionOptions(isolation_level="serializable", read_only=False)

    both = outer | inner
    alone = outer | TransactionOptions(isolation_level="AUTOCOMMIT")

    assert both == TransactionOptions(
        isolation_level=SERIALIZABLE, read_only=False, timeout=5, attempts=2
    )
    assert alone == TransactionOptions(isolation_level="AUTOCOMMIT", attempts=2)


# Round trips


async def trips(flavour: Flavour, body: Any, **options: Any) -> int:
    """Count what a unit says to the server, once everything is prepared."""
    async with Proxy(flavour.url) as proxy:
        there = replace(flavour, url=proxy.url).another()
        counter = RoundTrips()
        proxy.for_newcomers.append(counter)
        for _ in range(8):
            await there.work(body, **options)
        before = counter.count
        await there.work(body, **options)
        made = counter.count - before
        await there.dispose()
    return made


def read(session: Session) -> None:
    session.execute(text("SELECT name FROM item")).all()


FOLDED = {"isolation_level": SERIALIZABLE, "read_only": True, "deferrable": True}


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    ("options", "more"),
    [
        (FOLDED, 0),
        ({"timeout": 5.0, "lock_timeout": 1.0}, 1),
        ({**FOLDED, "timeout": 5.0}, 1),
    ],
)
async def test_what_can_be_is_folded_into_begin(
    flavour: Flavour, options: dict[str, Any], more: int
) -> None:
    assert await trips(flavour, read) == 3  # BEGIN, SELECT, COMMIT
    assert await trips(flavour, read, **options) == 3 + more


@only(*POSTGRESQL)
async def test_a_read_in_autocommit_is_one_round_trip(flavour: Flavour) -> None:
    assert await trips(flavour, names, isolation_level="AUTOCOMMIT") == 1


@only(*POSTGRESQL)
async def test_sql_text_in_autocommit_pays_for_a_transaction(flavour: Flavour) -> None:
    assert await trips(flavour, read, isolation_level="AUTOCOMMIT") == 3


@only(*MARIADB)
@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"isolation_level": SERIALIZABLE, "read_only": True}, 1),
        ({"timeout": 5.0, "lock_timeout": 1.0}, 0),
    ],
)
async def test_mariadb_needs_one_round_trip_at_most(
    flavour: Flavour, options: dict[str, Any], more: int
) -> None:
    plain = await trips(flavour, read)
    assert await trips(flavour, read, **options) == plain + more


@only(*MARIADB)
async def test_rows_that_the_orm_adds_still_go_in_one_round_trip(
    flavour: Flavour,
) -> None:
    def add_many(session: Session) -> None:
        session.execute(delete(Item))
        session.add_all([Item(name=str(number)) for number in range(20)])

    plain = await trips(flavour, add_many)
    assert await trips(flavour, add_many, timeout=5.0, lock_timeout=1.0) == plain

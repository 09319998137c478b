"""The header Server-Timing, and the tags of statements: where they are requested."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from support.asgi import Reply, call
from support.flavours import EVERY, MARIADB, Flavour, only
from support.models import add_item, names
from unitwork import DatabaseSettings, DBSessionMiddleware, UsageError
from unitwork.events import UnitInfo

pytestmark = pytest.mark.anyio

TIMES = re.compile(
    r"db-wait;dur=[\d.]+, "
    r'db-sql;dur=[\d.]+;desc="(\d) statements", '
    r"db-commit;dur=[\d.]+"
)


async def get(flavour: Flavour, body: Any, **options: Any) -> Reply:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, **options)
    app.get("/items/{id}")(flavour.endpoint(body))
    return await call(app, "GET", "/items/7")


def timing(reply: Reply) -> str:
    return dict(reply.starts[0]["headers"]).get(b"server-timing", b"").decode()


@only("sqlite3", "asyncpg")
async def test_a_response_has_the_times_of_its_unit(flavour: Flavour) -> None:
    reply = await get(
        flavour, lambda s: s.scalar(text("SELECT 1")), server_timing=lambda scope: True
    )

    found = TIMES.fullmatch(timing(reply))
    assert found is not None
    assert found[1] == "1"


@only("sqlite3", "asyncpg")
async def test_only_where_the_predicate_says_so(flavour: Flavour) -> None:
    paths = []

    def never(scope: Any) -> bool:
        paths.append(scope["path"])
        return False

    reply = await get(
        flavour, lambda s: s.scalar(text("SELECT 1")), server_timing=never
    )

    assert paths == ["/items/7"]
    assert timing(reply) == ""


@only("asyncpg")
async def test_a_predicate_that_fails_does_not_change_what_is_committed(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(scope: Any) -> bool:
        raise LookupError

    reply = await get(flavour, lambda s: add_item(s).id, server_timing=fail)

    assert reply.status == 200
    assert "server_timing has failed" in caplog.text
    assert await flavour.work(names) == ["one"]


def route(unit: UnitInfo) -> dict[str, str]:
    return {"route": unit.route or unit.kind, "by": "it's */ 100%"}


@only(*EVERY, *MARIADB)
async def test_tags_change_no_statement_whatever_its_driver_escapes(
    flavour: Flavour,
) -> None:
    other = flavour.another(settings=DatabaseSettings(sql_tags=route))

    def body(session: Any) -> list[str]:
        add_item(session, "100% {one}")
        return names(session)

    reply = await get(other, body)

    await other.dispose()
    assert reply.json == ["100% {one}"]


@only("psycopg", "psycopg-async", "asyncpg")
async def test_the_server_sees_the_tags(flavour: Flavour) -> None:
    other = flavour.another(settings=DatabaseSettings(sql_tags=route))
    query = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"

    reply = await get(other, lambda session: session.scalar(text(query)))

    await other.dispose()
    assert reply.json == f"{query} /*by='it_s _/ 100_',route='/items/{{id}}'*/"


@only("sqlite3", "asyncpg")
async def test_tags_that_fail_cost_no_unit_its_connection(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(unit: UnitInfo) -> dict[str, str]:
        raise LookupError

    other = flavour.another(settings=DatabaseSettings(sql_tags=fail))

    assert await other.work(lambda session: add_item(session).name) == "one"

    await other.dispose()
    assert "sql_tags has failed" in caplog.text


def test_what_can_not_be_called_is_refused() -> None:
    with pytest.raises(UsageError, match="sql_tags"):
        DatabaseSettings(sql_tags="route")  # type: ignore[arg-type]

"""P8: what a request costs, counted: calls of unitwork's own Python functions.

A count is the same on every machine; each limit is what it was when it was written.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from types import CodeType
from typing import Any

import pytest
from fastapi import FastAPI, Request
from sqlalchemy import text

import unitwork
from support.asgi import ASGIApp, call
from support.flavours import Flavour, only
from unitwork import DBSessionMiddleware
from unitwork._engine.hold_watch import hold_watch
from unitwork._observing.registry import observing
from unitwork.options import route_retries

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.version_info < (3, 12), reason="no sys.monitoring"),
    only("asyncpg"),
]

SOURCE = str(Path(unitwork.__file__).parent)
WARM_UP = REPEATED = 3


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the functions of unitwork that this thread calls."""
    counted: Counter[str] = Counter()
    here = get_ident()

    def started(code: CodeType, offset: int) -> None:
        if code.co_filename.startswith(SOURCE) and get_ident() == here:
            counted[code.co_qualname] += 1

    monitoring: Any = vars(sys)["monitoring"]
    tool, event = monitoring.PROFILER_ID, monitoring.events.PY_START
    monitoring.use_tool_id(tool, "unitwork tests")
    monitoring.register_callback(tool, event, started)
    monitoring.set_events(tool, event)
    try:
        yield counted
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


async def calls_of(app: ASGIApp, path: str) -> int:
    """How many calls one request makes, once what is kept for all has been made.

    The fewest of some: garbage of other tests may be collected in the middle of one.
    """
    for _ in range(WARM_UP):
        await call(app, "GET", path)
    found = []
    for _ in range(REPEATED):
        with counting() as counted:
            assert (await call(app, "GET", path)).status == 200
        found.append(counted.total())
    return min(found)


@pytest.fixture
def without_hold_watch() -> Iterator[None]:
    hold_watch.is_on = True  # it is not started then
    yield
    hold_watch.is_on = False  # what it was may be out of date: the next one starts it


@pytest.fixture
def app(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch, without_hold_watch: None
) -> FastAPI:
    # What is switched on for the whole process, by other tests or by the time.
    monkeypatch.setattr(route_retries, "by_endpoints", False)
    monkeypatch.setattr(route_retries, "by_routers", False)
    monkeypatch.setattr(observing, "is_on", False)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/nothing")
    async def nothing() -> str:
        return "pong"

    @app.get("/read")
    async def read() -> int:
        found: int = await flavour.db.current.scalar(text("SELECT 1"))
        return found

    @app.get("/reads")
    async def reads() -> int:
        session = flavour.db.current
        return sum([await session.scalar(text("SELECT 1")) for _ in range(11)])

    return app


async def test_a_request_without_a_database_makes_few_calls(app: FastAPI) -> None:
    assert await calls_of(app, "/nothing") <= 5


async def test_and_two_more_if_other_routes_have_attempts(app: FastAPI) -> None:
    route_retries.by_endpoints = True

    assert await calls_of(app, "/nothing") <= 7


async def test_a_read_makes_no_more_calls_than_it_did(app: FastAPI) -> None:
    assert await calls_of(app, "/read") <= 100


async def test_a_further_statement_makes_few_calls(app: FastAPI) -> None:
    one, eleven = await calls_of(app, "/read"), await calls_of(app, "/reads")

    assert eleven - one <= 10 * 6


async def test_what_a_request_sets_has_no_default_in_the_class(
    app: FastAPI, flavour: Flavour
) -> None:
    # Python finds such an attribute more slowly, wherever it is read.
    used: list[Any] = []

    @app.get("/seen")
    async def seen(request: Request) -> None:
        await flavour.db.current.scalar(text("SELECT 1"))
        exchange = request.scope["state"].provider
        used.extend([exchange, exchange.unit, exchange.unit.sessions])

    await call(app, "GET", "/seen")

    for each in used:
        assert [name for name in vars(each) if hasattr(type(each), name)] == []

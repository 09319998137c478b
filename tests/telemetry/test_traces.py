"""The spans of units: where they hang, and what they say."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from opentelemetry.trace import StatusCode
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import Response
from starlette.routing import Route

from support.asgi import call
from support.exported import Exported
from support.flavours import EVERY, FEW, Flavour, only
from support.models import add_item
from unitwork import DBSessionMiddleware
from unitwork.telemetry import instrument

pytestmark = pytest.mark.anyio


def read(session: Session) -> Any:
    return session.scalar(text("SELECT 1"))


def fastapi_app(flavour: Flavour, exported: Exported, **options: Any) -> FastAPI:
    providers: Any = {**exported.providers, **options}
    app = FastAPI(telemetry=providers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


@only(*EVERY)
async def test_a_unit_hangs_below_the_span_of_its_request_in_fastapi(
    instrumented: Flavour, exported: Exported
) -> None:
    app = fastapi_app(instrumented, exported, operation_spans=True)
    app.get("/items/{id}")(instrumented.endpoint(read))

    await call(app, "GET", "/items/7")

    server, unit = exported.spans["GET /items/{id}"], exported.spans["unit"]
    assert unit.parent == server.context
    assert unit.attributes["http.route"] == "/items/{id}"
    assert unit.attributes["db.transaction.outcome"] == "committed"
    assert server.start_time <= unit.start_time <= unit.end_time


@only("aiosqlite", "asyncpg")
async def test_and_in_starlette(instrumented: Flavour, exported: Exported) -> None:
    async def endpoint(request: Any) -> Response:
        session = await instrumented.db.session(request)
        await session.run_sync(read)
        return Response()

    app = Starlette(
        routes=[Route("/items/{id}", endpoint)],
        middleware=[
            Middleware(
                OpenTelemetryMiddleware, tracer_provider=exported.tracer_provider
            ),
            Middleware(DBSessionMiddleware, db=instrumented.db),
        ],
    )

    await call(app, "GET", "/items/7")

    server = exported.spans["GET /items/{id}"]
    assert exported.spans["unit"].parent == server.context


@FEW
async def test_a_unit_without_a_request_has_no_parent(
    instrumented: Flavour, exported: Exported
) -> None:
    await instrumented.work(read)

    assert exported.spans["unit"].parent is None


@FEW
async def test_commit_is_an_event_before_the_response(
    instrumented: Flavour, exported: Exported
) -> None:
    app = fastapi_app(instrumented, exported)
    app.get("/")(instrumented.endpoint(read))

    await call(app, "GET", "/")

    commit, started = exported.spans["unit"].events
    assert (commit.name, started.name) == ("COMMIT", "response started")
    assert commit.timestamp <= started.timestamp
    assert 0 <= commit.attributes["unitwork.duration"] < 60


@FEW
async def test_what_takes_long_has_a_span_of_its_own(
    flavour: Flavour, exported: Exported
) -> None:
    stop = instrument(flavour.db, span_above=0.0, **exported.providers)

    await flavour.work(read)

    stop()
    unit = exported.spans["unit"]
    assert exported.spans["COMMIT"].parent == unit.context
    assert exported.spans["wait"].parent == unit.context


@only("psycopg", "asyncpg")
async def test_an_error_of_the_database_is_an_attribute(
    instrumented: Flavour, exported: Exported
) -> None:
    with pytest.raises(Exception, match="nothing"):
        await instrumented.work(lambda s: s.execute(text("SELECT * FROM nothing")))

    unit = exported.spans["unit"]
    assert unit.attributes["db.response.status_code"] == "42P01"
    assert unit.attributes["error.type"] == "42P01"
    assert unit.attributes["unitwork.reason"] == "exception"
    assert unit.status.status_code is StatusCode.ERROR


@FEW
async def test_a_refusal_of_the_application_is_no_error_of_the_unit(
    instrumented: Flavour, exported: Exported
) -> None:
    def refuse(session: Session) -> Any:
        add_item(session)
        return Response(status_code=409)

    app = fastapi_app(instrumented, exported)
    app.get("/", response_model=None)(instrumented.endpoint(refuse))

    await call(app, "GET", "/")

    unit = exported.spans["unit"]
    assert unit.attributes["db.transaction.outcome"] == "rolled_back"
    assert unit.status.status_code is StatusCode.UNSET


@only("aiosqlite", "asyncpg")
async def test_the_unit_of_a_background_task_is_linked_to_that_of_its_request(
    instrumented: Flavour, exported: Exported
) -> None:
    async def later() -> None:
        await instrumented.work(read)

    async def endpoint(tasks: BackgroundTasks) -> None:
        await instrumented.db.current.run_sync(read)
        tasks.add_task(later)

    app = fastapi_app(instrumented, exported)
    app.get("/")(endpoint)

    await call(app, "GET", "/")

    first, second = exported.of("unit")
    [link] = second.links
    assert link.context == first.context


@only("asyncpg")
async def test_a_unit_inside_another_one_is_its_child(
    instrumented: Flavour, exported: Exported
) -> None:
    async with instrumented.block() as session:
        await instrumented.do(session, read)
        await instrumented.work(read)

    inner, outer = exported.of("unit")
    assert inner.parent == outer.context


@only("aiosqlite")
async def test_a_unit_that_uses_no_database_has_no_span(
    instrumented: Flavour, exported: Exported
) -> None:
    async with instrumented.block():
        pass

    assert exported.spans == {}

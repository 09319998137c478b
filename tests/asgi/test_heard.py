"""What goes wrong is logged: once, with its cause, and with the database's name."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError

from support.asgi import call
from support.endpoints import serve_fastapi, serve_starlette
from support.flavours import FEW, Flavour, only
from support.models import add_item, names
from unitwork import (
    CommitUnknownError,
    DatabaseSettings,
    DBSessionMiddleware,
    DeadlineExceededError,
    PoolTimeoutError,
)
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.name == "unitwork"]


def raising(error: Exception) -> Any:
    def body(session: Any) -> None:
        add_item(session)
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PoolTimeoutError("none is free"), 503),
        (CommitUnknownError("lost"), 500),
        (DeadlineExceededError("too late"), 504),
    ],
)
@FEW
async def test_what_the_ready_handlers_answer_is_logged_once(
    flavour: Flavour, caplog: pytest.LogCaptureFixture, error: Exception, status: int
) -> None:
    app = serve_fastapi(flavour, raising(error), handlers=exception_handlers)

    assert (await call(app, "POST", "/")).status == status
    (record,) = logged(caplog)
    assert record.levelno == logging.ERROR
    assert record.message == f"POST / was answered with {status}"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@FEW
async def test_a_client_that_is_wrong_is_not_logged(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    error = IntegrityError("INSERT", None, Exception())
    app = serve_fastapi(flavour, raising(error), handlers=exception_handlers)

    assert (await call(app, "POST", "/")).status == 409
    assert logged(caplog) == []


@FEW
async def test_the_answer_without_handlers_names_the_request(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve_starlette(flavour, raising(PoolTimeoutError("none is free")))

    await call(app, "POST", "/?password=s3cret")

    (record,) = logged(caplog)
    assert record.message == "POST / was answered with 503"


def out_of_reach(flavour: Flavour) -> Flavour:
    url = make_url(flavour.url).set(host="127.0.0.1", port=1, password="s3cret")
    away = Flavour(flavour.name, url.render_as_string(False), flavour.db)
    return away.another()


@only("psycopg", "psycopg-async", "asyncpg")
@pytest.mark.parametrize("handlers", [None, exception_handlers])
async def test_a_server_that_is_down_is_named_without_its_password(
    flavour: Flavour, caplog: pytest.LogCaptureFixture, handlers: Any
) -> None:
    app = serve_fastapi(out_of_reach(flavour), names, handlers=handlers)

    reply = await call(app, "GET", "/")

    errors = [each.exc_info[1] for each in logged(caplog) if each.exc_info]
    (error,) = [*errors, *([reply.error] if reply.error else [])]
    (note,) = getattr(error, "__notes__", ())
    assert note.startswith("while connecting to database 'default' (postgresql+")
    assert "at 127.0.0.1:1, database " in note
    assert "s3cret" not in f"{error}{note}"


@only("psycopg", "asyncpg")
async def test_a_block_names_a_server_that_is_down(flavour: Flavour) -> None:
    with pytest.raises(Exception, match=r"refused|Connect call failed") as caught:
        await out_of_reach(flavour).work(names)

    (note,) = caught.value.__notes__
    assert "at 127.0.0.1:1, database " in note


# Slow units


def slow(flavour: Flavour, limit: float | None) -> tuple[Flavour, FastAPI]:
    settings = DatabaseSettings(slow_unit_warning=limit)
    timed = flavour.another(settings=settings)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=timed.db)
    app.post("/items/{name}")(timed.endpoint(lambda session: add_item(session).id))
    return timed, app


@FEW
async def test_a_slow_unit_is_logged_with_its_route(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    timed, app = slow(flavour, 1e-9)

    assert (await call(app, "POST", "/items/lamp")).status == 200

    (record,) = logged(caplog)
    assert record.levelno == logging.WARNING
    assert record.message.startswith(
        "slow unit of work: POST /items/{name} used database 'default' for 0."
    )
    await timed.dispose()


@FEW
async def test_a_slow_block_is_logged(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    timed, _ = slow(flavour, 1e-9)

    await timed.work(add_item)

    (record,) = logged(caplog)
    assert "a transaction() block used database 'default' for 0." in record.message
    await timed.dispose()


@pytest.mark.parametrize("limit", [None, 60.0])
@FEW
async def test_a_unit_that_is_fast_enough_is_not_logged(
    flavour: Flavour, caplog: pytest.LogCaptureFixture, limit: float | None
) -> None:
    timed, app = slow(flavour, limit)

    await call(app, "POST", "/items/lamp")

    assert logged(caplog) == []
    await timed.dispose()

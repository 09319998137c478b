"""What goes wrong is logged: once, with its cause, and with the database's name."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError

from support.asgi import call
from support.endpoints import serve_fastapi, serve_starlette
from support.flavours import FEW, Flavour, only
from support.models import add_item, names
from unitwork import (
    CommitUnknownError,
    DatabaseUnavailableError,
    DeadlineExceededError,
    PoolTimeoutError,
)
from unitwork._asgi.problems import name_of
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


def test_a_path_is_named_in_one_line() -> None:
    assert name_of({"method": "GET", "path": "/a\nERROR"}) == r"GET /a\nERROR"


@FEW
async def test_a_database_that_is_out_of_reach_takes_one_line(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    error = DatabaseUnavailableError("database 'default' can't be reached: refused")
    app = serve_fastapi(flavour, raising(error))

    assert (await call(app, "GET", "/")).status == 503
    (record,) = logged(caplog)
    assert record.levelno == logging.WARNING
    assert record.message == f"GET / was answered with 503: {error}"
    assert record.exc_info is None


@FEW
async def test_its_traceback_is_logged_for_debugging(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    error = DatabaseUnavailableError("database 'default' can't be reached: refused")
    app = serve_fastapi(flavour, raising(error), handlers=exception_handlers)

    with caplog.at_level(logging.DEBUG, "unitwork"):
        assert (await call(app, "GET", "/")).status == 503

    (record,) = logged(caplog)
    assert record.exc_info is not None
    assert record.exc_info[1] is error


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

"""What the page on handling errors says is so."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError
from starlette.requests import Request
from starlette.responses import Response

import unitwork.fastapi
from support.manual import Page, page_of
from support.page_tables import code_in, rows
from unitwork import Classification, Kind, Phase, errors
from unitwork._asgi.problems import problem_of
from unitwork.fastapi import answer_database_error, exception_handlers

TEXT = page_of(Path(__file__)).read_text(encoding="utf-8")
HANDLERS = rows(TEXT, "Exception", "Handler", "Status")
OF_KINDS = rows(TEXT, "Kind", "Status")
DETAIL = "The change conflicts with what is stored, or breaks a rule of the database."
REQUEST = Request({"type": "http", "method": "GET", "headers": []})


def made(name: str) -> Exception:
    """An error of the class that the page calls *name*."""
    match name:
        case "sqlalchemy.exc.IntegrityError":
            return exc.IntegrityError("INSERT", None, Exception())
        case "sqlalchemy.exc.TimeoutError":
            return exc.TimeoutError("full")
        case "sqlalchemy.orm.exc.StaleDataError":
            return StaleDataError("changed")
        case "PartialCommitError":
            return errors.PartialCommitError("a part", committed=("a",))
    kind: type[Exception] = getattr(errors, name)
    return kind("why")


def called(kind: type[Exception]) -> str:
    own = kind.__module__ in ("builtins", errors.__name__)
    return kind.__name__ if own else f"{kind.__module__}.{kind.__name__}"


def shown(response: Response) -> str:
    after = ", with `Retry-After`" if "retry-after" in response.headers else ""
    return f"{response.status_code}{after}"


def test_its_code_does_what_it_says(page: Page) -> None:
    main = page.run(up_to="Without handlers")
    with TestClient(main.app) as client:
        first = client.post("/items/?name=chair")
        second = client.post("/items/?name=chair")
    main = page.run()

    asyncio.run(main.db.dispose())
    problem = {"type": "about:blank", "title": "Conflict", "status": 409}
    assert (first.status_code, second.status_code) == (200, 409)
    assert second.json() == {**problem, "detail": DETAIL}
    assert second.headers["content-type"] == "application/problem+json"


def test_lists_the_ready_handlers() -> None:
    listed = {
        kind: code_in(by)[0] for kinds, by, *_ in HANDLERS for kind in code_in(kinds)
    }

    ready = {called(kind): by.__name__ for kind, by in exception_handlers.items()}
    assert listed == ready


@pytest.mark.parametrize(
    ("kind", "handler", "status"), [row[:3] for row in HANDLERS if row[2] != "by kind"]
)
async def test_a_ready_handler_answers_with_its_status(
    kind: str, handler: str, status: str
) -> None:
    answer = getattr(unitwork.fastapi, handler.strip("`"))

    assert shown(await answer(REQUEST, made(kind.strip("`")))) == status


@pytest.mark.parametrize("kind", Kind)
async def test_a_database_error_is_answered_by_its_kind(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {each: row[1] for row in OF_KINDS for each in code_in(row[0])}
    error = RuntimeError()
    found = Classification(
        kind=kind, phase=Phase.STATEMENT, family="sqlite", reason="", error=error
    )
    monkeypatch.setattr(unitwork.fastapi, "classify", lambda error: found)

    try:
        status = shown(await answer_database_error(REQUEST, error))
    except RuntimeError:
        status = OF_KINDS[-1][1]

    assert status == listed.get(kind.name, OF_KINDS[-1][1])


def test_lists_the_errors_that_are_answered_without_handlers() -> None:
    answered = {name for name in errors.__all__ if problem_of(made(name))}

    listed = {code_in(row[0])[0] for row in HANDLERS if row[3] == "yes"}
    assert listed == answered | {"sqlalchemy.exc.TimeoutError"}


@pytest.mark.parametrize(
    ("name", "status"), [(row[0], row[2]) for row in HANDLERS if row[3] == "yes"]
)
def test_an_answer_without_handlers(name: str, status: str) -> None:
    problem = problem_of(made(name.strip("`")))

    assert problem is not None
    after = ", with `Retry-After`" if "Retry-After" in problem.headers else ""
    assert f"{problem.status.value}{after}" == status
    assert problem.type == "about:blank" or f"`{problem.type}`" in TEXT


def test_lists_each_kind_of_error() -> None:
    listed = rows(TEXT, "`found.kind`")

    assert [code_in(row[0]) for row in listed] == [[kind.name] for kind in Kind]


def test_says_what_is_retryable() -> None:
    [listed] = re.findall(r"`found\.retryable` is true for (.*?)\.", TEXT)

    retryable = {
        kind.name
        for kind in Kind
        if Classification(
            kind=kind, phase=Phase.STATEMENT, reason="", error=Exception()
        ).retryable
    }
    assert set(code_in(listed)) == retryable

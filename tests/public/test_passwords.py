"""No message has a password in it, nor has the traceback that goes with it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import make_url

from unitwork import AsyncDatabase, Database, DBSessionMiddleware, UsageError
from unitwork.testing import check_idle

PASSWORD = "tr0ub4dor"
URL = f"postgresql+psycopg://u:{PASSWORD}@h/db"


class Settings:
    """An application's settings, with the usual repr."""

    def __repr__(self) -> str:
        return f"Settings(url={URL!r})"


UNUSABLE = [
    f"postgres//u:{PASSWORD}@h:5432/db",
    f"postgresql://u:{PASSWORD}@h:port/db",
    f"postgresql+asyncpg://u:x@y/{PASSWORD}@h/db",
    f"host=h password={PASSWORD}",
    f"nosuch://u:{PASSWORD}@h/db",
    f"nosuch://h/db?password={PASSWORD}",
    f"postgresql+asyncpg://h/db?password={PASSWORD}",
    f"sqlite://u:{PASSWORD}@h/items.db",
]


def check_hidden(caught: pytest.ExceptionInfo[UsageError]) -> None:
    shown = "".join(traceback.format_exception(caught.value, limit=0))
    assert PASSWORD not in shown
    assert PASSWORD not in repr(caught.value)


@pytest.mark.parametrize("url", UNUSABLE)
def test_a_url_that_can_not_be_used_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Database(url)

    check_hidden(caught)


def test_an_option_that_can_not_be_used_is_named_without_the_password() -> None:
    with pytest.raises(UsageError, match="nonsense") as caught:
        Database(URL, nonsense=True, connect_args={"password": PASSWORD})

    check_hidden(caught)


WRONG: list[Callable[[], Any]] = [
    lambda: Database(Settings()),
    lambda: AsyncDatabase({"url": URL}),
    lambda: Database(lambda: URL).engine,
    lambda: AsyncDatabase(lambda: make_url(f"{URL}?password={PASSWORD}")).engine,
    lambda: Database(URL, name=Settings()),  # type: ignore[arg-type]
    lambda: DBSessionMiddleware(None, URL.replace("psycopg", "psycopg2")),
    lambda: DBSessionMiddleware(None, [Settings()]),  # type: ignore[arg-type,list-item]
    lambda: check_idle(URL),  # type: ignore[arg-type]
    lambda: AsyncDatabase(URL.replace("psycopg", "psycopg2")),
]


@pytest.mark.parametrize("use", WRONG)
def test_an_object_that_is_no_database_is_not_shown(use: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        use()

    check_hidden(caught)


def test_a_database_does_not_show_its_url(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    database = Database(URL)

    assert PASSWORD not in repr(database) + caplog.text
    database.dispose()

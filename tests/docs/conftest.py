"""`page`: the page that a file of tests is about, ready to be run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from support.manual import ROOT, Page, opened, page_of


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page of this file: test_life_of_a_unit.py is about docs/life-of-a-unit.md."""
    with opened(page_of(request.path)) as page:
        yield page


@pytest.fixture
def client(main: Any) -> Iterator[TestClient]:
    """A client of the page's application; *main* is a fixture of each file."""
    with TestClient(main.app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def stored(main: Any, client: TestClient) -> Callable[[], list[str]]:
    """Returns the names of the page's items."""

    async def names() -> list[str]:
        ordered = select(main.Item.name).order_by(main.Item.id)
        async with main.db.transaction() as session:
            return list(await session.scalars(ordered))

    return partial(client.portal.call, names)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    command += ["--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that has passed has run all of its page, or written it into files."""
    result = yield
    page = pyfuncitem.funcargs.get("page")
    if isinstance(page, Page):
        page.check_complete()
    return result

"""`page`: the page that a file of tests is about, ready to be run."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from support.manual import Page, opened, page_of


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page of this file: test_life_of_a_unit.py is about docs/life-of-a-unit.md."""
    with opened(page_of(request.path)) as page:
        yield page


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that has passed has run all of its page, or written it into files."""
    result = yield
    page = pyfuncitem.funcargs.get("page")
    if isinstance(page, Page):
        page.check_complete()
    return result

"""What the page on errors says is so."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.manual import Page, page_of
from support.page_tables import code_in, rows
from unitwork import errors

TEXT = page_of(Path(__file__)).read_text(encoding="utf-8")


def test_its_code_does_what_it_says(page: Page) -> None:
    main = page.run()

    asyncio.run(main.db.dispose())


def test_lists_each_error_and_warning_with_its_bases() -> None:
    listed = {
        code_in(name)[0]: code_in(bases)
        for name, bases, _ in rows(TEXT, "Name", "Subclass of")
    }

    assert listed == {
        name: [base.__name__ for base in getattr(errors, name).__bases__]
        for name in errors.__all__
    }

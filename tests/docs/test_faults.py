"""What the page on faults says is so; tests/faults/ and tests/promises/ inject them."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest
from sqlalchemy import select, text

from support.manual import ROOT, Page, page_of
from support.page_tables import code_in, rows

TEXT = page_of(Path(__file__)).read_text(encoding="utf-8")


def test_a_verifier_leaves_a_row_for_each_transaction_that_writes(page: Page) -> None:
    main = page.run()
    db, receipts = main.db, main.receipts

    async def use() -> list[bool | None]:
        async with db.engine.begin() as connection:
            await connection.run_sync(receipts.create)
            await connection.execute(text("CREATE TABLE item (name TEXT)"))
        async with db.transaction() as session:
            await session.execute(text("INSERT INTO item VALUES ('lamp')"))
        async with db.transaction() as session:
            [mark] = await session.scalars(select(receipts.c.id))
            connection = await session.connection()
            committed = main.Receipts().committed
            found = [await connection.run_sync(committed, x) for x in (mark, "none")]
        await db.dispose()
        return found

    assert asyncio.run(use()) == [True, None]


def messages() -> set[str]:
    """What the source logs, with … in place of what is put in."""
    files = (ROOT / "src").rglob("*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant))
    return {
        re.sub(r"%(\.\d)?[sdrgf]", "…", each) for each in texts if isinstance(each, str)
    }


@pytest.mark.parametrize("message", [row[0] for row in rows(TEXT, "Message")])
def test_a_message_is_logged_as_the_page_says(message: str) -> None:
    assert set(code_in(message)) <= messages()

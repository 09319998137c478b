"""`with` in place of `async with`, and the other way round."""

from __future__ import annotations

from typing import NoReturn

from ..errors import UsageError

__all__ = ["refuse_async_with", "refuse_with"]


def refuse_with(*args: object) -> NoReturn:
    raise UsageError(
        "the blocks of an AsyncDatabase are async: write "
        "`async with db.transaction() as session:`"
    )


async def refuse_async_with(*args: object) -> NoReturn:
    raise UsageError(
        "the blocks of a Database are sync: write `with db.transaction() as session:`, "
        "in a `def` endpoint or in a thread, or use AsyncDatabase"
    )

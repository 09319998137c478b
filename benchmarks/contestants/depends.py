"""The recipe of most tutorials: a dependency that yields, commits, and closes."""

from collections.abc import AsyncIterator, Iterator
from typing import Literal

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from . import Built, Setup
from .ways import injected


def build(setup: Setup, scope: Literal["request", "function"] = "request") -> Built:
    if setup.is_async:
        async_factory = setup.async_factory

        async def get_async_db() -> AsyncIterator[AsyncSession]:
            async with async_factory() as session:
                try:
                    yield session
                    await session.commit()
                except BaseException:
                    await session.rollback()
                    raise

        return Built(FastAPI(), injected(Depends(get_async_db, scope=scope)))

    factory = setup.factory

    def get_db() -> Iterator[Session]:
        with factory() as session:
            try:
                yield session
                session.commit()
            except BaseException:
                session.rollback()
                raise

    return Built(FastAPI(), injected(Depends(get_db, scope=scope)))

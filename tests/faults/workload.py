"""The application that meets one fault at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from faults.tables import Entry, SlowEntry
from support.flavours import Flavour


def insert(session: Session, key: str) -> int:
    entry = Entry(key=key)
    session.add(entry)
    session.flush()
    return entry.id


def insert_slowly(session: Session, key: str) -> None:
    """Its COMMIT takes time."""
    session.add(SlowEntry(key=key))
    session.flush()


def read(session: Session, key: str) -> int:
    return session.scalar(select(func.count()).select_from(Entry)) or 0


def refuse(session: Session, key: str) -> None:
    insert(session, key)
    raise HTTPException(409)


PATHS: dict[str, Callable[[Session, str], Any]] = {
    "insert": insert,
    "insert_slowly": insert_slowly,
    "read": read,
    "refuse": refuse,
}


def application(flavour: Flavour) -> FastAPI:
    """Serve each of them: `POST /insert/key`."""
    app, injected = FastAPI(), Depends(flavour.db.session)

    async def async_endpoint(
        name: str, key: str, session: AsyncSession = injected
    ) -> Any:
        return await session.run_sync(PATHS[name], key)

    def endpoint(name: str, key: str, session: Session = injected) -> Any:
        return PATHS[name](session, key)

    app.post("/{name}/{key}")(async_endpoint if flavour.is_async else endpoint)
    return app

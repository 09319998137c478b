"""An application for usual mistakes, and what the errors of it say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from support.asgi import call
from unitwork import AsyncDatabase, Database, DBSessionMiddleware

__all__ = ["Base", "Item", "Owner", "World", "raised_by", "said"]


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    items: Mapped[list[Item]] = relationship()


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))


class World:
    """An application with both kinds of database, and what its mistakes lead to."""

    def __init__(self, folder: Path) -> None:
        self.db = AsyncDatabase(f"sqlite+aiosqlite:///{folder}/items.db")
        self.sync_db = Database(f"sqlite:///{folder}/items.db", name="sync")
        self.app = FastAPI()
        self.app.add_middleware(DBSessionMiddleware, db=[self.db, self.sync_db])

    async def said_by(self, endpoint: Callable[..., Any]) -> str:
        """What the error of a request to *endpoint* says."""
        self.app.get("/", response_model=None)(endpoint)
        return said((await call(self.app, "GET", "/")).error)


def said(error: BaseException | None) -> str:
    inner = map(said, getattr(error, "exceptions", ()))
    return "\n".join([str(error), *getattr(error, "__notes__", ()), *inner])


def raised_by(mistake: Callable[[], Any]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # the test compares it
        mistake()
    return said(caught.value)

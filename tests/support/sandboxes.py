"""Sandboxes, entered in both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from support.models import Item
from unitwork.testing import Sandbox, sandbox

WAYS = ["with", "async with"]


@asynccontextmanager
async def entered(way: str, *dbs: Any, **options: Any) -> AsyncIterator[Sandbox]:
    """A sandbox that belongs to the caller's context, also if that is a fixture."""
    if way == "with":
        with sandbox(*dbs, **options) as box:
            yield box
    else:
        async with sandbox(*dbs, **options) as box:
            yield box


def count(session: Session) -> int:
    return session.scalar(select(func.count(Item.id))) or 0


def names(session: Session) -> list[str]:
    return list(session.scalars(select(Item.name).order_by(Item.name)))

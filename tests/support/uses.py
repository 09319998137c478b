"""What can be done with a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from support.flavours import Flavour
from support.models import Item, add_item

Use = Callable[[Session], Any]
USES: dict[str, Use] = {
    "add": lambda session: session.add(Item(name="late")),
    "add_all": lambda session: session.add_all([Item(name="late")]),
    "begin": lambda session: session.begin(),
    "begin_nested": lambda session: session.begin_nested(),
    "bulk_save_objects": lambda session: session.bulk_save_objects([Item(name="late")]),
    "commit": lambda session: session.commit(),
    "connection": lambda session: session.connection(),
    "execute": lambda session: session.execute(text("SELECT 1")),
    "get": lambda session: session.get(Item, 1),
    "get_one": lambda session: session.get_one(Item, 1),
    "merge": lambda session: session.merge(Item(id=1, name="late")),
    "prepare": lambda session: session.prepare(),
    "query": lambda session: session.query(Item).all(),
    "refresh": lambda session: session.refresh(Item(id=1, name="late")),
    "scalar": lambda session: session.scalar(select(Item)),
    "scalars": lambda session: session.scalars(select(Item)),
}
some_use = pytest.mark.parametrize(
    "use", [USES[name] for name in ("add", "execute", "commit")]
)


def serve_background(flavour: Flavour, app: FastAPI, task: Callable[..., Any]) -> None:
    """Run *task*, with the request and its session, as a background task."""
    injected = Depends(flavour.db.session)

    @app.post("/")
    async def endpoint(
        request: Request, tasks: BackgroundTasks, session: Any = injected
    ) -> None:
        await flavour.do(session, lambda s: add_item(s).id)
        tasks.add_task(task, request, session)

"""Requests that may be tried again, and how often they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.conflicts import Conflict
from support.flavours import Flavour
from support.models import add_item
from unitwork import DBSessionMiddleware, TransactionOptions, current_unit

THREE = TransactionOptions(attempts=3)


@dataclass
class Tried:
    """What each attempt does, and how often it was done."""

    flavour: Flavour
    attempts: list[int] = field(default_factory=list)

    def add(self, session: Session) -> None:
        """Write a row that tells which attempt it is of."""
        add_item(session, f"attempt {len(self.attempts)}")

    async def request(
        self, *steps: Callable[[], Any], options: TransactionOptions = THREE
    ) -> Reply:
        """Do the *steps*, in an endpoint that fails at first and succeeds then."""

        async def endpoint() -> None:
            self.attempts.append(current_unit().attempt)
            for step in steps:
                await step()
            if len(self.attempts) == 1:
                raise Conflict

        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, db=self.flavour.db, options=options)
        app.post("/")(endpoint)
        return await call(app, "POST", "/")

    async def write(self) -> None:
        """In the session of the request."""
        await self.flavour.do(await self.flavour.db.session(), self.add)

    async def write_and_commit(self) -> None:
        def body(session: Session) -> None:
            self.add(session)
            session.commit()

        await self.flavour.do(await self.flavour.db.session(), body)

    async def block(self) -> None:
        """Write in a block of its own."""
        await self.flavour.work(self.add)


def check_once(tried: Tried, reply: Reply, error: type[Exception] = Conflict) -> None:
    assert (reply.status, type(reply.error)) == (500, error)
    assert tried.attempts == [1]

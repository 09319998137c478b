"""What a request does: the same statements for every contestant, sync and async."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .schema import Event, Item

Endpoint = Callable[..., Any]
Work = Callable[[Any], Any]
"""Takes a session, and gives what the endpoint returns."""
Wrap = Callable[[Work], Endpoint]
"""Makes an endpoint of work, by a contestant's own way to come by a session."""


class Workload(NamedTuple):
    name: str
    title: str
    method: str = "GET"
    status: int = 200
    weight: int = 1
    """How many times more requests than others: it is over so soon."""
    writes: int = 0

    @property
    def path(self) -> str:
        return f"/{self.name}"


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("nothing", "no database", weight=8),
        Workload("read", "one read"),
        Workload("write", "one write", "POST", writes=1),
        Workload("mixed", "read, write, read", "POST", writes=1),
        Workload("reads", "ten reads"),
        Workload("missing", "a returned 404", status=404),
        Workload("stream", "a streamed response"),
    )
}
CHUNKS = [b"chunk %d\n" % number for number in range(10)]


def by_id(number: int) -> Select[Any]:
    return select(Item).where(Item.id == number)


def named(item: Item | None) -> dict[str, str]:
    if item is None:
        raise LookupError("there is no such item")
    return {"name": item.name}


def not_found(item: Item | None) -> JSONResponse:
    if item is not None:
        raise LookupError("there is such an item")
    return JSONResponse({"detail": "no such item"}, 404)


async def chunks() -> AsyncIterator[bytes]:
    for chunk in CHUNKS:
        yield chunk


class AsyncWork:
    """With an `AsyncSession`."""

    @staticmethod
    async def read(session: AsyncSession) -> object:
        return named(await session.scalar(by_id(1)))

    @staticmethod
    async def write(session: AsyncSession) -> object:
        session.add(Event(name="written"))
        await session.flush()
        return {}

    @staticmethod
    async def mixed(session: AsyncSession) -> object:
        await session.scalar(by_id(1))
        session.add(Event(name="written"))
        await session.flush()
        return named(await session.scalar(by_id(2)))

    @staticmethod
    async def reads(session: AsyncSession) -> object:
        return [named(await session.scalar(by_id(n))) for n in range(1, 11)]

    @staticmethod
    async def missing(session: AsyncSession) -> object:
        return not_found(await session.scalar(by_id(0)))

    @staticmethod
    async def stream(session: AsyncSession) -> object:
        named(await session.scalar(by_id(1)))
        return StreamingResponse(chunks())


class SyncWork:
    """With a `Session`, in a thread."""

    @staticmethod
    def read(session: Session) -> object:
        return named(session.scalar(by_id(1)))

    @staticmethod
    def write(session: Session) -> object:
        session.add(Event(name="written"))
        session.flush()
        return {}

    @staticmethod
    def mixed(session: Session) -> object:
        session.scalar(by_id(1))
        session.add(Event(name="written"))
        session.flush()
        return named(session.scalar(by_id(2)))

    @staticmethod
    def reads(session: Session) -> object:
        return [named(session.scalar(by_id(n))) for n in range(1, 11)]

    @staticmethod
    def missing(session: Session) -> object:
        return not_found(session.scalar(by_id(0)))

    @staticmethod
    def stream(session: Session) -> object:
        named(session.scalar(by_id(1)))
        return StreamingResponse(chunks())


async def nothing() -> dict[str, str]:
    return {}


def nothing_in_thread() -> dict[str, str]:
    return {}


def add_routes(app: FastAPI, wrap: Wrap, *, is_async: bool) -> None:
    """Give *app* an endpoint for each workload."""
    app.add_api_route("/nothing", nothing if is_async else nothing_in_thread)
    works = AsyncWork if is_async else SyncWork
    for workload in WORKLOADS.values():
        if workload.name != "nothing":
            work = getattr(works, workload.name)
            app.add_api_route(workload.path, wrap(work), methods=[workload.method])

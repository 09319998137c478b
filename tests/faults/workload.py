"""The application under fault: on unitwork, and on the usual `Depends(get_db)`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from faults.tables import Account, Entry, SlowEntry, Transfer

Body = Callable[..., Any]


def insert(session: Session, key: str) -> int:
    entry = Entry(key=key)
    session.add(entry)
    session.flush()
    return entry.id


def insert_slowly(session: Session, key: str) -> None:
    """Its COMMIT takes time."""
    session.add(SlowEntry(key=key))
    session.flush()


def transfer(session: Session, key: str, source: int, target: int, amount: int) -> None:
    wanted = select(Account).where(Account.id.in_((source, target)))
    locked = session.scalars(wanted.order_by(Account.id).with_for_update())
    accounts = {account.id: account for account in locked}
    if accounts[source].balance < amount:
        raise HTTPException(402)
    accounts[source].balance -= amount
    session.flush()
    accounts[target].balance += amount
    transfer = Transfer(key=key, source=source, target=target, amount=amount)
    session.add(transfer)
    session.flush()


def read(session: Session, key: str) -> int:
    return len(session.scalars(select(Account)).all())


def refuse(session: Session, key: str) -> None:
    insert(session, key)
    raise HTTPException(409)


PATHS: dict[str, Body] = {
    "insert": insert,
    "insert_slowly": insert_slowly,
    "transfer": transfer,
    "read": read,
    "refuse": refuse,
}
"""And "stream", which writes once before the response and once in its midst."""


def application(dependency: Callable[..., Any], *, is_async: bool) -> FastAPI:
    """Serve it all with the session that *dependency* gives."""
    app = FastAPI()
    injected = Depends(dependency)
    (_serve_async if is_async else _serve_sync)(app, injected)
    return app


def _serve_async(app: FastAPI, injected: Any) -> None:
    @app.post("/transfer/{key}")
    async def move(
        key: str,
        source: int,
        target: int,
        amount: int,
        session: AsyncSession = injected,
    ) -> None:
        await session.run_sync(transfer, key, source, target, amount)

    def add(name: str) -> None:
        async def endpoint(key: str, session: AsyncSession = injected) -> Any:
            return await session.run_sync(PATHS[name], key)

        _route(app, name)(endpoint)

    for name in PATHS.keys() - {"transfer"}:
        add(name)

    @app.post("/stream/{key}")
    async def stream(key: str, session: AsyncSession = injected) -> StreamingResponse:
        await session.run_sync(insert, f"{key} head")

        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            await session.run_sync(insert, f"{key} tail")
            yield b"b"

        return StreamingResponse(body())


def _serve_sync(app: FastAPI, injected: Any) -> None:
    @app.post("/transfer/{key}")
    def move(
        key: str, source: int, target: int, amount: int, session: Session = injected
    ) -> None:
        transfer(session, key, source, target, amount)

    def add(name: str) -> None:
        def endpoint(key: str, session: Session = injected) -> Any:
            return PATHS[name](session, key)

        _route(app, name)(endpoint)

    for name in PATHS.keys() - {"transfer"}:
        add(name)

    @app.post("/stream/{key}")
    def stream(key: str, session: Session = injected) -> StreamingResponse:
        insert(session, f"{key} head")

        def body() -> Iterator[bytes]:
            yield b"a"
            insert(session, f"{key} tail")
            yield b"b"

        return StreamingResponse(body())


def _route(app: FastAPI, name: str) -> Any:
    method = "GET" if name == "read" else "POST"
    return app.api_route(f"/{name}/{{key}}", methods=[method])


def get_db(maker: Callable[[], Any], *, is_async: bool) -> Callable[..., Any]:
    """The dependency that everybody writes."""
    if is_async:

        async def get_async_db() -> AsyncIterator[AsyncSession]:
            async with maker() as session:
                try:
                    yield session
                    await session.commit()
                except BaseException:
                    await session.rollback()
                    raise

        return get_async_db

    def get_sync_db() -> Iterator[Session]:
        with maker() as session:
            try:
                yield session
                session.commit()
            except BaseException:
                session.rollback()
                raise

    return get_sync_db

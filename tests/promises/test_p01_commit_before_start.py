"""P1: a success starts only after the database has confirmed COMMIT."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from support.asgi import Message, call
from support.flavours import Flavour, Observer, everywhere, only
from support.models import Item, add_item
from unitwork import UsageError


async def seen_at_start(app: FastAPI, observer: Observer, path: str) -> list[str]:
    """What others can see at the moment the start message reaches the server."""
    seen: list[str] = []

    def look(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.extend(observer.names())

    reply = await call(app, "POST", path, on_message=look)
    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    return seen


@everywhere
async def test_the_row_is_visible_to_others_when_the_response_starts(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))

    assert await seen_at_start(app, observer, "/") == ["one"]


@everywhere
async def test_what_a_stream_wrote_is_visible_before_its_last_chunk(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    at_last_chunk: list[list[str]] = []

    def look(message: Message) -> None:
        if message["type"] == "http.response.body" and not message["more_body"]:
            at_last_chunk.append(observer.names())

    @app.post("/")
    async def stream() -> StreamingResponse:
        async def body() -> object:
            yield b"a"
            await flavour.do(flavour.db.current, lambda s: add_item(s, "streamed").id)
            yield b"b"

        return StreamingResponse(body())

    reply = await call(app, "POST", "/", on_message=look)

    assert reply.body == b"ab"
    assert at_last_chunk == [["streamed"]]


@only("asyncpg", "aiosqlite")
async def test_a_write_is_not_kept_waiting_for_a_cursor_that_is_streamed(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    @app.post("/")
    async def write_and_stream() -> StreamingResponse:
        session = flavour.db.current
        await flavour.do(session, lambda s: add_item(s).id)
        names = await session.stream_scalars(select(Item.name))
        return StreamingResponse(names)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, UsageError)
    assert observer.names() == []

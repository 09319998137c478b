"""WebSockets: failures between two messages, and handshakes that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocket, WebSocketException
from fastapi.responses import RedirectResponse
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from starlette.responses import Response

from support.asgi import ASGIApp, Message
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import add_item, add_orphan
from support.pool import check_pool_is_whole
from support.sockets import Handle, run, serve
from support.websocket import Socket
from unitwork import DBSessionMiddleware, Ending, UnexpectedRollbackError, current_unit

pytestmark = pytest.mark.anyio


# Failures


async def test_an_exception_rolls_back(flavour: Flavour, observer: Observer) -> None:
    async def fail(websocket: WebSocket, message: str) -> None:
        await run(flavour, lambda s: add_item(s, message).id)
        raise LookupError

    async with Socket(serve(flavour, fail), "/") as socket:
        socket.send("one")
        await socket.ended()

    assert isinstance(socket.error, LookupError)
    assert observer.names() == []


async def test_an_exception_that_the_endpoint_handles_is_not_that_of_its_message(
    flavour: Flavour, observer: Observer
) -> None:
    async def apologize(websocket: WebSocket, message: str) -> None:
        try:
            raise LookupError
        except LookupError:
            await run(flavour, lambda s: add_item(s, message).id)
            await websocket.send_text("created")

    async with Socket(serve(flavour, apologize), "/") as socket:
        assert await socket.ask("one") == "created"

    assert socket.error is None
    assert observer.names() == ["one"]


async def test_a_refused_handshake_rolls_back(
    flavour: Flavour, observer: Observer
) -> None:
    async def refuse() -> None:
        await run(flavour, lambda s: add_item(s).id)
        raise WebSocketException(1008)

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.websocket("/", dependencies=[Depends(refuse)])
    async def endpoint(websocket: WebSocket) -> None: ...

    async with Socket(app, "/", expect="websocket.close"):
        pass

    assert observer.names() == []


async def test_a_failed_commit_raises_in_the_endpoint_and_the_socket_may_go_on(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    async def try_orphan(websocket: WebSocket, message: str) -> None:
        await run(flavour, add_orphan)
        with pytest.raises(IntegrityError):
            await websocket.send_text("stored")
        await store(websocket, message)

    async with Socket(serve(flavour, try_orphan), "/") as socket:
        assert await socket.ask("one") == "stored"
        assert await socket.ask("two") == "stored"

    assert socket.error is None
    assert (observer.names(), observer.children()) == (["one", "two"], 0)


async def test_a_failed_commit_that_nobody_catches_ends_the_socket(
    flavour: Flavour, observer: Observer
) -> None:
    sent: list[Message] = []

    async def orphan(websocket: WebSocket, message: str) -> None:
        await run(flavour, add_orphan)
        await websocket.send_text("stored")

    app = serve(flavour, orphan)
    async with Socket(app, "/", on_message=sent.append) as socket:
        socket.send("one")
        await socket.ended()

    assert isinstance(socket.error, IntegrityError)
    assert [message["type"] for message in sent] == ["websocket.accept"]
    assert observer.children() == 0


@only(*POSTGRESQL)
async def test_a_swallowed_error_spoils_its_own_message_only(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    def swallow(session: Session) -> None:
        add_item(session, "lost")
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))

    async def swallow_first(websocket: WebSocket, message: str) -> None:
        await run(flavour, swallow)
        with pytest.raises(UnexpectedRollbackError):
            await websocket.send_text("stored")
        await store(websocket, message)

    async with Socket(serve(flavour, swallow_first), "/") as socket:
        assert await socket.ask("one") == "stored"

    assert observer.names() == ["one"]


async def test_a_cancelled_endpoint_rolls_back(
    flavour: Flavour, observer: Observer
) -> None:
    written = asyncio.Event()

    async def hang(websocket: WebSocket, message: str) -> None:
        await run(flavour, lambda s: add_item(s, message).id)
        written.set()
        await asyncio.Event().wait()

    async with Socket(serve(flavour, hang), "/") as socket:
        socket.send("one")
        await written.wait()
        socket.cancel()
        await socket.ended()

    assert observer.names() == []
    await check_pool_is_whole(flavour)


# A handshake that is refused


def refusing(
    flavour: Flavour, refuse: Callable[[WebSocket], Awaitable[None]], **options: Any
) -> ASGIApp:
    """Write an item, and *refuse* the handshake."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, **options)

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await run(flavour, lambda s: add_item(s).id)
        await refuse(websocket)

    return app


DENIAL = "websocket.http.response.start"


async def deny(websocket: WebSocket) -> None:
    await websocket.send_denial_response(Response("no", 403))


async def close(websocket: WebSocket) -> None:
    await websocket.close()


async def redirect(websocket: WebSocket) -> None:
    await websocket.send_denial_response(RedirectResponse("/elsewhere"))


async def count_and_deny(websocket: WebSocket) -> None:
    current_unit().commit_anyway()
    await deny(websocket)


async def connect_in_vain(app: ASGIApp, expect: str) -> list[str]:
    """Give the kinds of the messages that refuse."""
    sent: list[Message] = []
    async with Socket(app, "/", expect=expect, on_message=sent.append) as socket:
        pass
    assert socket.error is None
    return [message["type"] for message in sent]


@pytest.mark.parametrize(
    ("refuse", "expect"), [(deny, DENIAL), (close, "websocket.close")]
)
async def test_a_refusal_rolls_back(
    flavour: Flavour, observer: Observer, refuse: Any, expect: str
) -> None:
    sent = await connect_in_vain(refusing(flavour, refuse), expect)

    assert (sent[0], observer.names()) == (expect, [])


@pytest.mark.parametrize("refuse", [redirect, count_and_deny])
async def test_a_denial_that_is_no_failure_is_committed_before_it_goes_out(
    flavour: Flavour, observer: Observer, refuse: Any
) -> None:
    seen: list[list[str]] = []
    app = refusing(flavour, refuse)

    def look(message: Message) -> None:
        seen.append(observer.names())

    async with Socket(app, "/", expect=DENIAL, on_message=look):
        pass

    assert seen == [["one"], ["one"]]


async def test_the_policy_of_the_application_judges_a_denial(
    flavour: Flavour, observer: Observer
) -> None:
    judged: list[Ending] = []

    def commit_when(ending: Ending) -> bool:
        judged.append(ending)
        return True

    app = refusing(flavour, deny, commit_when=commit_when)
    await connect_in_vain(app, DENIAL)

    assert observer.names() == ["one"]
    assert judged == [Ending(status=403, method="GET", path="/")]


async def test_a_policy_that_fails_ends_the_socket_and_rolls_back(
    flavour: Flavour, observer: Observer
) -> None:
    def fail(ending: Ending) -> bool:
        raise LookupError

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None: ...

    app = refusing(flavour, close, commit_when=fail)
    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    with pytest.raises(LookupError):
        async with asyncio.timeout(10):
            await app(scope, receive, send)

    assert observer.names() == []

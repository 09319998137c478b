"""WebSockets: what a message has begun is settled before the next one, in or out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import WebSocket
from fastapi.testclient import TestClient
from sqlalchemy.exc import IntegrityError
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from support.asgi import ASGIApp, Message
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import add_item, add_orphan, names
from support.pool import check_pool_is_whole
from support.sockets import Endpoint, Handle, fastapi, run, serve
from support.websocket import Socket
from unitwork import (
    DBSessionMiddleware,
    SessionEndedError,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio


def starlette(flavour: Flavour, endpoint: Endpoint) -> ASGIApp:
    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


# Settled before the next message


@pytest.mark.parametrize("framework", [fastapi, starlette])
async def test_work_is_committed_before_the_answer_goes_out(
    flavour: Flavour, store: Handle, observer: Observer, framework: Any
) -> None:
    seen: list[list[str]] = []

    def look(message: Message) -> None:
        seen.append(observer.names())

    app = serve(flavour, store, framework)
    async with Socket(app, "/", on_message=look) as socket:
        assert await socket.ask("one") == "stored"
        assert await socket.ask("two") == "stored"

    assert seen == [[], ["one"], ["one", "two"]]
    assert socket.error is None


async def test_work_is_committed_before_the_application_waits_for_more(
    flavour: Flavour, observer: Observer
) -> None:
    async def store_silently(websocket: WebSocket, message: str) -> None:
        await run(flavour, lambda s: add_item(s, message).id)

    async with Socket(serve(flavour, store_silently), "/") as socket:
        socket.send("one")
        await socket.listening()

        assert observer.names() == ["one"]
        assert flavour.db.pool_status().checked_out == 0


async def test_work_after_the_client_has_left_is_committed_too(
    flavour: Flavour, observer: Observer
) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass
        await run(flavour, lambda s: add_item(s, "has left").id)

    async with Socket(fastapi(flavour, endpoint), "/") as socket:
        await socket.listening()

    assert observer.names() == ["has left"]


async def test_nobody_holds_a_connection_while_he_waits(
    flavour: Flavour, observer: Observer
) -> None:
    async def count(websocket: WebSocket, message: str) -> None:
        await websocket.send_text(str(len(await run(flavour, names))))

    app = serve(flavour, count)
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(Socket(app, "/")) for _ in range(200)
        ]
        for socket in sockets:
            assert await socket.ask("how many?") == "0"
        status = flavour.db.pool_status()

        assert (status.checked_out, status.waiting) == (0, 0)
        assert observer.in_transaction() == []
        assert await sockets[0].ask("and now?") == "0"


async def test_many_who_ask_at_once_take_turns(flavour: Flavour) -> None:
    async def count(websocket: WebSocket, message: str) -> None:
        await websocket.send_text(str(len(await run(flavour, names))))

    app = serve(flavour, count)
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(Socket(app, "/")) for _ in range(60)]
        answers = await asyncio.gather(*(socket.ask("?") for socket in sockets))

    assert set(answers) == {"0"}


async def test_the_session_is_the_same_for_all_messages(flavour: Flavour) -> None:
    sessions: list[Any] = []

    async def collect(websocket: WebSocket, message: str) -> None:
        sessions.extend([websocket.state.db, flavour.db.current])
        sessions.append(await flavour.db.session(websocket))
        await run(flavour, names)
        await websocket.send_text("ok")

    async with Socket(serve(flavour, collect), "/") as socket:
        await socket.ask("one")
        await socket.ask("two")

    assert len(sessions) == 6
    assert len(set(map(id, sessions))) == 1


# Several that send


async def send_three(websocket: WebSocket) -> list[BaseException | None]:
    return await asyncio.gather(
        *(websocket.send_text(f"stored {n}") for n in range(3)), return_exceptions=True
    )


async def test_those_who_send_at_once_wait_for_one_commit(
    flavour: Flavour, observer: Observer
) -> None:
    results: list[BaseException | None] = []
    seen: list[list[str]] = []

    async def store(websocket: WebSocket, message: str) -> None:
        await run(flavour, lambda s: add_item(s, message).id)
        results.extend(await send_three(websocket))

    def look(message: Message) -> None:
        seen.append(observer.names())

    async with Socket(serve(flavour, store), "/", on_message=look) as socket:
        assert await socket.ask("one") == "stored 0"

    assert results == [None] * 3
    assert seen == [[], ["one"], ["one"], ["one"]]


async def test_those_who_send_at_once_all_hear_of_a_failed_commit(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    results: list[BaseException | None] = []

    async def try_orphan(websocket: WebSocket, message: str) -> None:
        await run(flavour, add_orphan)
        results.extend(await send_three(websocket))
        await store(websocket, message)

    async with Socket(serve(flavour, try_orphan), "/") as socket:
        assert await socket.ask("one") == "stored"

    assert [type(error) for error in results] == [IntegrityError] * 3
    assert (observer.names(), observer.children()) == (["one"], 0)


@only(*ASYNC)
async def test_a_message_does_not_commit_a_block_that_is_open(
    flavour: Flavour, observer: Observer
) -> None:
    async def store_in_a_block(websocket: WebSocket, message: str) -> None:
        async with flavour.db.transaction() as session:
            await flavour.do(session, lambda s: add_item(s, message).id)
            await websocket.send_text("half done")
            raise LookupError

    async with Socket(serve(flavour, store_in_a_block), "/") as socket:
        assert await socket.ask("one") == "half done"
        await socket.ended()

    assert isinstance(socket.error, LookupError)
    assert observer.names() == []


async def test_a_hook_may_send_after_the_commit(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    seen: list[list[str]] = []

    async def register(websocket: WebSocket, message: str) -> None:
        current_unit().on_commit(websocket.send_text, "from the hook")
        await store(websocket, message)

    def look(message: Message) -> None:
        seen.append(observer.names())

    async with Socket(serve(flavour, register), "/", on_message=look) as socket:
        assert await socket.ask("one") == "from the hook"
        assert (await socket.receive())["text"] == "stored"

    assert seen == [[], ["one"], ["one"]]


async def test_a_hook_can_not_send_before_the_commit(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    async def register(websocket: WebSocket, message: str) -> None:
        current_unit().before_commit(websocket.send_text, "too early")
        with pytest.raises(UsageError, match="Use on_commit"):
            await store(websocket, message)
        await websocket.send_text("go on")

    async with Socket(serve(flavour, register), "/") as socket:
        assert await socket.ask("one") == "go on"

    assert observer.names() == []


# What is said of the unit holds for one message


async def test_rollback_only_is_for_one_message(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    async def drop_or_keep(websocket: WebSocket, message: str) -> None:
        {"drop": current_unit().rollback_only}.get(message, str)()
        await store(websocket, message)

    async with Socket(serve(flavour, drop_or_keep), "/") as socket:
        for message in ("drop", "keep", "drop", "keep too"):
            assert await socket.ask(message) == "stored"

    assert observer.names() == ["keep", "keep too"]


@pytest.mark.parametrize("name", ["rollback_only", "commit_anyway"])
async def test_what_a_message_without_work_says_is_not_for_the_next(
    flavour: Flavour, store: Handle, observer: Observer, name: str
) -> None:
    async def say_or_store(websocket: WebSocket, message: str) -> None:
        if message == "say":
            getattr(current_unit(), name)()
            await websocket.send_text("said")
        else:
            await store(websocket, message)

    async with Socket(serve(flavour, say_or_store), "/") as socket:
        assert await socket.ask("say") == "said"
        assert await socket.ask("one") == "stored"

    assert observer.names() == ["one"]


async def test_hooks_are_for_one_message(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    called: list[tuple[str, list[str]]] = []

    async def register(websocket: WebSocket, message: str) -> None:
        unit = current_unit()
        unit.before_commit(lambda: called.append(("before", observer.names())))
        unit.on_commit(lambda: called.append(("after", observer.names())))
        unit.on_rollback(lambda: called.append(("dropped", observer.names())))
        {"drop": unit.rollback_only}.get(message, str)()
        await store(websocket, message)

    async with Socket(serve(flavour, register), "/") as socket:
        await socket.ask("drop")
        await socket.ask("keep")

    assert called == [("dropped", []), ("before", []), ("after", ["keep"])]


# After the end


async def test_the_session_refuses_once_the_socket_is_closed(
    flavour: Flavour, observer: Observer
) -> None:
    closed = asyncio.Event()
    late: list[asyncio.Task[Any]] = []

    async def write_late(session: Any) -> None:
        await closed.wait()
        await flavour.do(session, lambda s: add_item(s, "late").id)

    async def spawn(websocket: WebSocket, message: str) -> None:
        await run(flavour, names)
        late.append(asyncio.create_task(write_late(websocket.state.db)))
        await websocket.send_text("ok")

    async with Socket(serve(flavour, spawn), "/") as socket:
        await socket.ask("one")
    closed.set()

    with pytest.raises(SessionEndedError, match=r"db\.transaction\(\)"):
        await late[0]
    await check_pool_is_whole(flavour)


def test_it_works_with_the_test_client(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    app: Any = serve(flavour, store)
    with TestClient(app) as client, client.websocket_connect("/") as socket:
        socket.send_text("one")
        assert socket.receive_text() == "stored"

        assert observer.names() == ["one"]

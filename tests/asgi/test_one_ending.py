"""Whatever asks for the end of a unit: it ends once, and the others wait for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from support.asgi import call
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import add_item
from support.sockets import Handle, run, serve
from support.websocket import Socket
from unitwork import (
    DBSessionMiddleware,
    Outcome,
    UnexpectedRollbackError,
    UnitOfWork,
    current_unit,
)
from unitwork._unit.context import innermost
from unitwork._unit.endings import shut_down
from unitwork._unit.running import run_ending

pytestmark = pytest.mark.anyio


async def let_others_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_client_that_leaves_while_hooks_run_ends_nothing_again(
    flavour: Flavour, observer: Observer
) -> None:
    called: list[str] = []
    units: list[UnitOfWork] = []
    gone = asyncio.Event()
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    async def leave() -> None:
        gone.set()
        await let_others_run()

    @app.post("/")
    async def endpoint() -> StreamingResponse:
        session = flavour.db.current
        unit = current_unit()
        units.append(unit)

        async def body() -> AsyncIterator[str]:
            yield "1"
            await flavour.do(session, add_item)
            unit.on_commit(leave)
            unit.on_commit(called.append, "committed")
            unit.on_rollback(called.append, "rolled back")

        return StreamingResponse(body())

    await call(app, "POST", "/", gone=gone)

    assert (called, observer.names()) == (["committed"], ["one"])
    assert units[0].outcome is Outcome.COMMITTED


@only(*ASYNC)
async def test_a_task_of_an_earlier_hook_waits_for_a_hook_that_may_still_veto(
    flavour: Flavour, store: Handle, observer: Observer
) -> None:
    tasks: list[asyncio.Task[None]] = []
    vetoing = asyncio.Event()

    async def handle(websocket: WebSocket, message: str) -> None:
        unit = current_unit()

        async def tick() -> None:
            await vetoing.wait()
            await websocket.send_text("tick")

        async def start() -> None:
            tasks.append(asyncio.create_task(tick()))

        async def veto() -> None:
            vetoing.set()
            await let_others_run()
            raise LookupError

        if message == "one":
            unit.on_commit(start)
            await store(websocket, message)
            return
        await run(flavour, lambda session: add_item(session, message).id)
        unit.before_commit(veto)
        with pytest.raises(LookupError):
            await websocket.send_text("stored")
        assert await asyncio.gather(*tasks, return_exceptions=True) != [None]
        await websocket.send_text("vetoed")

    async with Socket(serve(flavour, handle), "/") as socket:
        assert await socket.ask("one") == "stored"
        assert await socket.ask("two") == "vetoed"

    assert observer.names() == ["one"]


@only(*ASYNC)
@pytest.mark.parametrize("moment", ["on_commit", "on_rollback"])
async def test_a_hook_may_wait_for_the_message_of_another_task(
    flavour: Flavour, moment: str
) -> None:
    queue: asyncio.Queue[str] = asyncio.Queue()
    senders: list[asyncio.Task[None]] = []

    async def handle(websocket: WebSocket, message: str) -> None:
        async def send_from_the_queue() -> None:
            while True:
                await websocket.send_text(await queue.get())
                queue.task_done()

        async def notify() -> None:
            queue.put_nowait("from the hook")
            await queue.join()

        senders.append(asyncio.create_task(send_from_the_queue()))
        await run(flavour, lambda session: add_item(session).id)
        unit = current_unit()
        getattr(unit, moment)(notify)
        {"on_rollback": unit.rollback_only}.get(moment, str)()
        await websocket.send_text("done")

    async with Socket(serve(flavour, handle), "/") as socket:
        assert await socket.ask("one") == "from the hook"
        assert (await socket.receive())["text"] == "done"
        senders[0].cancel()


@only(*ASYNC)
async def test_no_message_passes_while_the_hooks_of_a_shutdown_run(
    flavour: Flavour, observer: Observer
) -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await release.wait()

    async def handle(websocket: WebSocket, message: str) -> None:
        await run(flavour, lambda session: add_item(session).id)
        current_unit().on_rollback(wait)
        unit = innermost()
        assert unit is not None
        shutdown = asyncio.create_task(run_ending(unit, shut_down(unit)))
        await reached.wait()
        with pytest.raises(UnexpectedRollbackError, match="shut down"):
            await websocket.send_text("stored")
        release.set()
        await shutdown

    async with Socket(serve(flavour, handle), "/") as socket:
        socket.send("one")

    assert observer.names() == []

"""The applications that run programs: FastAPI endpoints, plain ASGI, WebSockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import product
from types import FunctionType
from typing import Any

from fastapi import Depends, FastAPI, WebSocket
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from soak.actor import HANDLED, OWN, Actor, Answered, drive
from soak.running import Running
from soak.structure import in_block
from unitwork import DBSessionMiddleware, transactional

ASGIApp = Callable[..., Awaitable[None]]


def applications(stage: Any) -> dict[tuple[bool, bool], ASGIApp]:
    """By whether a BaseHTTPMiddleware is inside, and whether one is outside."""
    return {
        (inside, outside): _application(stage, inside, outside)
        for inside, outside in product((False, True), repeat=2)
    }


async def _pass(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


def _application(stage: Any, inside: bool, outside: bool) -> ASGIApp:
    app = FastAPI()
    app.add_exception_handler(Answered, _handle)
    (_serve_async if stage.is_async else _serve_sync)(app, stage)
    if inside:
        app.add_middleware(BaseHTTPMiddleware, dispatch=_pass)
    app.add_middleware(DBSessionMiddleware, db=stage.db)
    app.add_middleware(Probe, stage=stage)
    if outside:
        app.add_middleware(BaseHTTPMiddleware, dispatch=_pass)
    return app


class Probe:
    """Sees what leaves the middleware, at that moment."""

    def __init__(self, app: ASGIApp, stage: Any) -> None:
        self._app = app
        self._stage = stage

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        number = scope["path"].rpartition("/")[2]
        running: Running = self._stage.running[int(number)]

        def note_receive() -> Any:
            running.waits()
            return receive()

        def note_send(message: Any) -> Any:
            running.passes(message)
            return send(message)

        try:
            await self._app(scope, note_receive, note_send)
        except BaseException as error:
            running.ended(error)
            raise
        running.ended(None)


async def _handle(request: Request, error: Any) -> Response:
    if not error.streams:
        return JSONResponse("handled", error.status, HANDLED)

    async def body() -> Any:
        yield b"handled, "
        yield b"in pieces"

    return StreamingResponse(body(), error.status, HANDLED)


OPTIONS: dict[str, dict[str, Any]] = {
    "retry": {"attempts": 3},
    "deadline": {"deadline": 0.03},
}


def _serve_async(app: FastAPI, stage: Any) -> None:
    dependency = Depends(stage.db.session)

    async def current(number: int) -> Response:
        return await _endpoint(stage, number)

    async def injected(number: int, session: Any = dependency) -> Response:
        return await _endpoint(stage, number, session)

    _route(app, current, injected)

    @app.websocket("/websocket/{number}")
    async def websocket(websocket: WebSocket, number: int) -> None:
        await _converse(stage.running[number], stage, websocket)

    app.mount("/plain", _plain(stage))


def _serve_sync(app: FastAPI, stage: Any) -> None:
    dependency = Depends(stage.db.session)

    def current(number: int) -> Any:
        return drive(_endpoint(stage, number))

    def injected(number: int, session: Any = dependency) -> Any:
        return drive(_endpoint(stage, number, session))

    _route(app, current, injected)


def _route(app: FastAPI, current: Any, injected: Any) -> None:
    post = {"methods": ["POST"], "response_model": None}
    app.add_api_route("/current/{number}", current, **post)
    app.add_api_route("/injected/{number}", injected, **post)
    for name, options in OPTIONS.items():
        app.add_api_route(
            f"/{name}/{{number}}", transactional(**options)(_copy(current)), **post
        )


def _copy(endpoint: Any) -> Any:
    """Another function, which can have options of its own."""
    copy = FunctionType(
        endpoint.__code__, endpoint.__globals__, closure=endpoint.__closure__
    )
    copy.__annotations__ = endpoint.__annotations__
    return copy


async def _endpoint(stage: Any, number: int, session: Any = None) -> Response:
    running: Running = stage.running[number]
    actor = Actor(stage, running.books, running.next_attempt(), session)
    await actor.run(running.program.ops)
    return _answer(running, actor)


def _answer(running: Running, actor: Actor) -> Response:
    program, stage = running.program, actor.stage
    background = None
    if program.background is not None:
        background = BackgroundTask(_background(running, stage))
    if not program.chunks:
        return JSONResponse("done", program.status, OWN, background=background)
    in_body = Actor(stage, running.books, running.body_unit)
    body = _async_body if stage.is_async else _sync_body
    return StreamingResponse(
        body(program.chunks, in_body), program.status, OWN, background=background
    )


def _background(running: Running, stage: Any) -> Callable[[], Any]:
    program = running.program
    assert program.background is not None
    if program.status < 400:
        running.background = running.unit.registered("background")

    async def run() -> None:
        if running.background is not None:
            running.background.calls += 1
        await in_block(stage, running.books, program.background or (), by_hook=True)

    return run if stage.is_async else (lambda: drive(run()))


async def _async_body(chunks: Any, actor: Actor) -> Any:
    for ops in chunks:
        await actor.run(ops)
        yield b"chunk"


def _sync_body(chunks: Any, actor: Actor) -> Any:
    for ops in chunks:
        drive(actor.run(ops))
        yield b"chunk"


def _plain(stage: Any) -> ASGIApp:
    """Without a framework, which can answer where a framework can't."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        running: Running = stage.running[int(scope["path"].rpartition("/")[2])]
        actor = Actor(stage, running.books, running.next_attempt())
        if not running.program.answers_in_except:
            await actor.run(running.program.ops)
            await _answer(running, actor)(scope, receive, send)
            return
        try:
            {}["missing"]
        except KeyError:
            await actor.run(running.program.ops)
            await _answer(running, actor)(scope, receive, send)

    return app


async def _converse(running: Running, stage: Any, websocket: WebSocket) -> None:
    actor = Actor(stage, running.books, running.unit)
    await websocket.accept()
    for op in running.program.ops:
        await websocket.receive_text()
        if op.arg != "in except":
            await actor.run(op.body)
            await websocket.send_text("done")
            continue
        try:
            {}["missing"]
        except KeyError:
            await actor.run(op.body)
            await websocket.send_text("done")
        await actor.run(op.handler)
    await websocket.close()

"""Applications that serve a WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, WebSocket
from sqlalchemy.orm import Session

from support.asgi import ASGIApp
from support.flavours import Flavour
from unitwork import DBSessionMiddleware

Handle = Callable[[WebSocket, str], Awaitable[object]]
Endpoint = Callable[[WebSocket], Awaitable[None]]


def fastapi(flavour: Flavour, endpoint: Endpoint) -> ASGIApp:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.websocket("/")(endpoint)
    return app


def serve(flavour: Flavour, handle: Handle, framework: Any = fastapi) -> ASGIApp:
    """Call *handle* for each text that comes in, until the client leaves."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket.iter_text():
            await handle(websocket, message)

    app: ASGIApp = framework(flavour, endpoint)
    return app


def run(flavour: Flavour, body: Callable[[Session], Any]) -> Awaitable[Any]:
    return flavour.do(flavour.db.current, body)

"""What the article promises, with other middleware inside and outside."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request

from support.flavours import Flavour, Observer, only
from support.models import add_item
from unitwork import DBSessionMiddleware

pytestmark = pytest.mark.anyio

one_of_each = only("sqlite3", "aiosqlite", "asyncpg")


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response


OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gzip": (GZipMiddleware, {"minimum_size": 1}),
    "cors": (CORSMiddleware, {"allow_origins": ["*"], "allow_methods": ["*"]}),
    "base http": (Passing, {}),
}
ORIGIN = {"origin": "http://elsewhere", "accept-encoding": "gzip"}
SIGNS = {
    "gzip": ("content-encoding", "gzip"),
    "cors": ("access-control-allow-origin", "*"),
    "base http": ("x-passed", "yes"),
}


def surrounded(flavour: Flavour, other: str, where: str) -> FastAPI:
    app = FastAPI()
    kind, options = OTHERS[other]
    order = [(DBSessionMiddleware, {"db": flavour.db}), (kind, options)]
    for made, made_of in order if where == "outside" else reversed(order):
        app.add_middleware(made, **made_of)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).name))

    def fail(session: Session) -> Response:
        add_item(session, "dropped")
        return PlainTextResponse("conflict", 409)

    app.post("/fails")(flavour.endpoint(fail))
    return app


@one_of_each
@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("other", OTHERS)
async def test_works_with_other_middleware(
    flavour: Flavour, observer: Observer, other: str, where: str
) -> None:
    app = surrounded(flavour, other, where)

    with TestClient(app) as client:
        good = client.post("/", headers=ORIGIN)
        bad = client.post("/fails", headers=ORIGIN)
        client.portal.call(flavour.dispose)

    name, value = SIGNS[other]
    assert (good.status_code, good.json(), good.headers[name]) == (200, "one", value)
    assert (bad.status_code, bad.text, bad.headers[name]) == (409, "conflict", value)
    assert observer.names() == ["one"]


@one_of_each
async def test_a_cors_preflight_needs_no_session(flavour: Flavour) -> None:
    app = surrounded(flavour, "cors", "inside")
    headers = {**ORIGIN, "access-control-request-method": "POST"}

    with TestClient(app) as client:
        assert client.options("/", headers=headers).status_code == 200

    assert flavour.db.pool_status().idle == 0

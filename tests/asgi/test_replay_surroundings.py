"""What a second attempt finds: scope, context, dependencies and middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount

from support.asgi import call
from support.conflicts import Conflict
from support.flavours import FEW, Observer
from support.models import add_item
from support.replaying import THREE, Replayed
from unitwork import DBSessionMiddleware, current_unit

pytestmark = pytest.mark.anyio

VISITOR: ContextVar[str] = ContextVar("VISITOR", default="nobody")


# The scope


@FEW
async def test_the_scope_is_as_it_was(replayed: Replayed) -> None:
    scopes: list[dict[str, Any]] = []

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope | {key: list(scope[key]) for key in ("headers", "state")})
        MutableHeaders(scope=scope).append("x-seen", "yes")
        scope["path"], scope["mine"], scope["endpoint"] = "/other", True, endpoint
        scope["state"]["mine"] = True
        await replayed.fail_once()
        await PlainTextResponse("done")(scope, receive, send)

    def endpoint() -> None: ...

    app = DBSessionMiddleware(bare, replayed.flavour.db, options=THREE)
    reply = await call(app, "POST", "/", state={"given": 1})

    assert (reply.status, replayed.attempts) == (200, [1, 2])
    assert scopes[0] == scopes[1]
    assert scopes[1]["state"] == ["given"]


@FEW
async def test_outer_middleware_looks_into_the_scope_of_the_last_attempt(
    replayed: Replayed,
) -> None:
    async def endpoint(request: Request) -> None:
        await replayed.fail_once()
        request.state.attempt = len(replayed.attempts)

    app = replayed.serve(endpoint)
    seen: list[Any] = []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        seen.extend([scope["route"].path, scope["state"]["attempt"]])

    assert (await call(outer, "POST", "/")).status == 200
    assert seen == ["/", 2]


class Session(dict[str, Any]):
    """As that of Starlette, whose middleware needs a package for signatures."""

    modified = False

    def __setitem__(self, key: str, value: Any) -> None:
        self.modified = True
        super().__setitem__(key, value)


@FEW
async def test_the_session_of_the_browser_is_as_it_was(replayed: Replayed) -> None:
    session = Session(cart=["lamp"])

    async def endpoint(request: Request) -> list[Any]:
        modified = request.session.modified  # type: ignore[attr-defined]  # ours
        request.session["cart"].append("table")
        request.session["visits"] = request.session.get("visits", 0) + 1
        await replayed.fail_once()
        return [modified, *request.session["cart"]]

    reply = await replayed.request(endpoint, session=session)

    assert reply.json == [False, "lamp", "table"]
    assert session == {"cart": ["lamp", "table"], "visits": 1}
    assert session.modified


@FEW
async def test_a_mounted_application_is_found_again(replayed: Replayed) -> None:
    inner = FastAPI()

    @inner.post("/deep/{number}")
    async def endpoint(number: int, request: Request) -> list[Any]:
        await replayed.fail_once()
        return [number, request.scope["root_path"], request.url.path]

    app = Starlette(routes=[Mount("/sub", app=inner)])
    app.add_middleware(DBSessionMiddleware, db=replayed.flavour.db, options=THREE)

    reply = await call(app, "POST", "/sub/deep/7")

    assert (reply.json, replayed.attempts) == ([7, "/sub", "/sub/deep/7"], [1, 2])


# Context variables


@FEW
async def test_context_variables_are_as_they_were(replayed: Replayed) -> None:
    async def endpoint() -> None:
        replayed.seen.append(VISITOR.get())
        VISITOR.set(f"attempt {len(replayed.seen)}")
        await replayed.fail_once()

    app = replayed.serve(endpoint)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        VISITOR.set("outer")
        await app(scope, receive, send)

    assert (await call(outer, "POST", "/")).status == 200
    assert replayed.seen == ["outer", "outer"]


@FEW
@pytest.mark.parametrize("fails", [True, False])
async def test_outer_middleware_sees_those_of_the_last_attempt(
    replayed: Replayed, fails: bool
) -> None:
    """In a bare application: frameworks run endpoints in contexts of their own."""

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        VISITOR.set(f"attempt {len(replayed.attempts) + 1}")
        await replayed.fail_once()
        if fails:
            raise LookupError
        await PlainTextResponse("done")(scope, receive, send)

    app = DBSessionMiddleware(bare, replayed.flavour.db, options=THREE)
    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, LookupError) == fails
    assert VISITOR.get() == "attempt 2"


# Dependencies, background tasks, hooks


@FEW
async def test_dependencies_are_left_and_entered_anew(replayed: Replayed) -> None:
    async def dependency() -> AsyncIterator[None]:
        replayed.seen.append("enter")
        try:
            yield
        finally:
            replayed.seen.append("leave")

    given = Depends(dependency)

    async def endpoint(entered: Any = given) -> None:
        await replayed.fail_once()

    await replayed.request(endpoint)

    assert replayed.seen == ["enter", "leave"] * 2


@FEW
@pytest.mark.parametrize("at_commit", [True, False])
async def test_background_tasks_run_once(replayed: Replayed, at_commit: bool) -> None:
    def check() -> None:
        if len(replayed.attempts) == 1:
            raise Conflict

    async def endpoint() -> Response:
        if at_commit:
            replayed.attempts.append(current_unit().attempt)
            current_unit().before_commit(check)
        else:
            await replayed.fail_once()
        task = BackgroundTask(replayed.seen.append, len(replayed.attempts))
        return PlainTextResponse("done", background=task)

    reply = await call(replayed.serve(endpoint), "POST", "/")

    assert (reply.status, replayed.attempts, replayed.seen) == (200, [1, 2], [2])


@FEW
async def test_hooks_are_those_of_their_attempt(replayed: Replayed) -> None:
    async def endpoint() -> None:
        unit, attempt = current_unit(), len(replayed.attempts) + 1
        unit.on_commit(replayed.seen.append, f"{attempt} committed")
        unit.on_rollback(replayed.seen.append, f"{attempt} rolled back")
        await replayed.fail_once()

    await replayed.request(endpoint)

    assert replayed.seen == ["1 rolled back", "2 committed"]


@FEW
async def test_a_hook_of_the_rollback_may_write_of_it(replayed: Replayed) -> None:
    flavour = replayed.flavour

    async def note() -> None:
        await flavour.work(lambda session: add_item(session, "noted") and None)

    async def endpoint() -> None:
        current_unit().on_rollback(note)
        await replayed.fail_once()

    reply = await call(replayed.serve(endpoint), "POST", "/")

    assert (reply.status, replayed.attempts) == (200, [1, 2])
    assert sorted(Observer(flavour.url).names()) == ["attempt 2", "noted"]


# Middleware around and inside


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


async def busy(request: Request, error: Exception) -> Response:
    return JSONResponse("busy", 503)


LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "BaseHTTPMiddleware": (BaseHTTPMiddleware, {"dispatch": pass_on}),
    "GZipMiddleware": (GZipMiddleware, {"minimum_size": 1}),
}


@FEW
@pytest.mark.parametrize("handlers", [None, {Conflict: busy}])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("outside", [True, False])
async def test_in_and_around_other_middleware(
    replayed: Replayed, layer: str, outside: bool, handlers: Any
) -> None:
    async def endpoint(data: dict[str, int]) -> dict[str, int]:
        await replayed.fail_once()
        return data

    app = FastAPI(exception_handlers=handlers)
    kind, options = LAYERS[layer]
    ours = (DBSessionMiddleware, {"db": replayed.flavour.db, "options": THREE})
    theirs = (kind, options)
    for each, given in (ours, theirs) if outside else (theirs, ours):
        app.add_middleware(each, **given)
    app.post("/")(endpoint)
    reply = await call(app, "POST", "/", body=b'{"a": 1}')

    hidden = layer == "BaseHTTPMiddleware" and not outside and handlers is not None
    assert (reply.status, reply.complete) == (503 if hidden else 200, True)
    assert replayed.attempts == ([1] if hidden else [1, 2])


@FEW
@pytest.mark.parametrize("handlers", [None, {Conflict: busy}, {Exception: busy}])
async def test_around_the_whole_application(replayed: Replayed, handlers: Any) -> None:
    """Inside is a `ServerErrorMiddleware`, which makes a response of every error."""

    async def endpoint() -> None:
        await replayed.fail_once()

    inner = FastAPI(exception_handlers=handlers)
    inner.post("/")(endpoint)
    app = DBSessionMiddleware(inner, replayed.flavour.db, options=THREE)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, reply.error) == (200, True, None)
    assert replayed.attempts == [1, 2]

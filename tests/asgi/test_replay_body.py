"""What a second attempt finds: everything as it was before the first."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any
from weakref import ReferenceType, ref

import httpx
import pytest
from fastapi import Depends, FastAPI, Form, UploadFile
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount

from support.asgi import Message, Reply, call, http_scope
from support.conflicts import Conflict
from support.flavours import Flavour, Observer, only
from support.models import add_item, names
from support.servers import SERVERS, Serve
from unitwork import DBSessionMiddleware, TransactionOptions, current_unit
from unitwork.retry import RetryPolicy

pytestmark = pytest.mark.anyio

FEW = only("sqlite3", "asyncpg")
"""Enough where no driver has a say; sync and async, and both databases."""
THREE = TransactionOptions(attempts=3)
VISITOR: ContextVar[str] = ContextVar("VISITOR", default="nobody")
Endpoint = Callable[..., Any]


class Replayed:
    """A request that fails in its first attempt, after *see* has seen it."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.attempts: list[int] = []
        self.seen: list[Any] = []

    async def fail_once(self) -> None:
        """Write, and fail the first time."""
        self.attempts.append(current_unit().attempt)
        name = f"attempt {len(self.attempts)}"
        session = await self.flavour.db.session()
        await self.flavour.do(session, lambda s: add_item(s, name) and None)
        if len(self.attempts) == 1:
            raise Conflict

    def serve(self, endpoint: Endpoint, **options: Any) -> FastAPI:
        app = FastAPI()
        options = {"options": THREE, **options}
        app.add_middleware(DBSessionMiddleware, db=self.flavour.db, **options)
        app.post("/")(endpoint)
        return app

    async def request(self, endpoint: Endpoint, **options: Any) -> Reply:
        reply = await call(self.serve(endpoint), "POST", "/", **options)
        assert (reply.status, reply.complete, reply.error) == (200, True, None)
        assert self.attempts == [1, 2]
        assert Observer(self.flavour.url).names() == ["attempt 2"]
        return reply


@pytest.fixture
def replayed(flavour: Flavour) -> Replayed:
    return Replayed(flavour)


def chunks(*parts: bytes) -> Callable[[], Any]:
    """A `receive` that gives a body in *parts*, and then waits for ever."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]
    messages[-1]["more_body"] = False

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    return receive


async def send_chunks(app: Any, *parts: bytes, **headers: str) -> Reply:
    """Make a POST whose body comes in *parts*."""
    reply = Reply()
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = http_scope("POST", "/", headers=raw)

    async def send(message: Message) -> None:
        reply.messages.append(message)

    try:
        await app(scope, chunks(*parts), send)
    except Exception as error:
        reply.error = error
    return reply


# The body


@FEW
async def test_json_is_read_anew(replayed: Replayed) -> None:
    async def endpoint(data: dict[str, int]) -> dict[str, int]:
        await replayed.fail_once()
        return data

    assert (await replayed.request(endpoint, body=b'{"a": 1}')).json == {"a": 1}


@FEW
async def test_a_form_is_read_anew(replayed: Replayed) -> None:
    async def endpoint(name: str = Form()) -> str:
        await replayed.fail_once()
        return name

    app = replayed.serve(endpoint)
    form = "application/x-www-form-urlencoded"
    reply = await send_chunks(app, b"na", b"me=la", b"mp", content_type=form)

    assert (reply.json, replayed.attempts) == ("lamp", [1, 2])


@FEW
async def test_an_upload_is_read_anew(replayed: Replayed) -> None:
    async def endpoint(file: UploadFile, note: str = Form()) -> list[Any]:
        content = await file.read()
        await replayed.fail_once()
        return [file.filename, len(content), note]

    upload = httpx.Request(
        "POST",
        "http://test/",
        files={"file": ("big.bin", b"x" * 100_000)},
        data={"note": "mine"},
    )
    body = upload.read()
    parts = [body[i : i + 10_000] for i in range(0, len(body), 10_000)]
    app = replayed.serve(endpoint)
    reply = await send_chunks(app, *parts, content_type=upload.headers["content-type"])

    assert (reply.json, replayed.attempts) == (["big.bin", 100_000, "mine"], [1, 2])


@FEW
async def test_a_streamed_body_is_streamed_anew(replayed: Replayed) -> None:
    async def endpoint(request: Request) -> list[str]:
        read = [part.decode() async for part in request.stream()]
        await replayed.fail_once()
        return read

    reply = await send_chunks(replayed.serve(endpoint), b"one", b"two", b"three")

    assert reply.json == ["one", "two", "three", ""]
    assert replayed.attempts == [1, 2]


@FEW
async def test_a_body_that_was_half_read_is_read_to_its_end(replayed: Replayed) -> None:
    async def endpoint(request: Request) -> list[str]:
        read: list[str] = []
        async for part in request.stream():
            read.append(part.decode())
            if part == b"two":
                await replayed.fail_once()
        return read

    reply = await send_chunks(replayed.serve(endpoint), b"one", b"two", b"three")

    assert reply.json == ["one", "two", "three", ""]
    assert replayed.attempts == [1, 2]


@FEW
async def test_each_attempt_may_read_as_much_of_it_as_it_likes(
    replayed: Replayed,
) -> None:
    read: list[list[bytes]] = []

    async def endpoint(request: Request) -> None:
        read.append([])
        wanted = [2, 0, 1, 4][len(read) - 1]
        stream = request.stream()
        read[-1] += [await anext(stream) for _ in range(wanted)]
        session = await replayed.flavour.db.session()
        await replayed.flavour.do(session, lambda s: add_item(s) and None)
        if len(read) < 4:
            raise Conflict

    app = replayed.serve(endpoint, options=TransactionOptions(attempts=4))
    assert (await send_chunks(app, b"a", b"b", b"c")).status == 200

    assert read == [[b"a", b"b"], [], [b"a"], [b"a", b"b", b"c", b""]]


@FEW
async def test_a_body_that_only_the_second_attempt_reads(replayed: Replayed) -> None:
    async def endpoint(request: Request) -> str:
        await replayed.fail_once()
        return (await request.body()).decode()

    reply = await send_chunks(replayed.serve(endpoint), b"one", b"two")

    assert (reply.json, replayed.attempts) == ("onetwo", [1, 2])


@FEW
@pytest.mark.parametrize("size", [10, 11])
async def test_a_body_beyond_the_limit_is_not_read_twice(
    replayed: Replayed, size: int
) -> None:
    last: list[bool] = []

    async def endpoint(request: Request) -> None:
        await request.body()
        last.append(current_unit().is_last_attempt)
        await replayed.fail_once()

    app = replayed.serve(endpoint, retry=RetryPolicy(body_limit=10))
    reply = await send_chunks(app, b"x" * 9, b"x" * (size - 9))

    once = size > 10
    assert reply.status == (500 if once else 200)
    assert replayed.attempts == ([1] if once else [1, 2])
    assert last == [once] * len(last)


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


# The client


@FEW
async def test_a_disconnect_is_still_seen_by_a_later_attempt(
    replayed: Replayed,
) -> None:
    gone = asyncio.Event()

    async def endpoint(request: Request) -> None:
        await replayed.fail_once()
        replayed.seen.append(await request.is_disconnected())
        replayed.seen.append(await request.is_disconnected())
        gone.set()
        replayed.seen.append((await request.receive())["type"])

    await replayed.request(endpoint, gone=gone)

    assert replayed.seen == [False, False, "http.disconnect"]


@FEW
async def test_a_client_that_has_left_is_not_served_again(replayed: Replayed) -> None:
    gone = asyncio.Event()

    async def endpoint() -> None:
        gone.set()
        await replayed.fail_once()

    retry = RetryPolicy(first_wait=60, longest_wait=60, give_up_after=100)
    reply = await call(replayed.serve(endpoint, retry=retry), "POST", "/", gone=gone)

    assert (type(reply.error), replayed.attempts) == (Conflict, [1])
    assert reply.error is not None
    assert "the client has left" in reply.error.__notes__[0]
    assert Observer(replayed.flavour.url).names() == []


@FEW
async def test_a_client_that_leaves_during_the_wait_ends_it(replayed: Replayed) -> None:
    gone = asyncio.Event()
    retry = RetryPolicy(
        first_wait=60,
        longest_wait=60,
        give_up_after=100,
        before_retry=lambda retry: asyncio.get_running_loop().call_soon(gone.set),
    )

    reply = await call(
        replayed.serve(replayed.fail_once, retry=retry), "POST", "/", gone=gone
    )

    assert (type(reply.error), replayed.attempts) == (Conflict, [1])


@FEW
async def test_it_is_noticed_whatever_of_the_body_was_read(replayed: Replayed) -> None:
    gone = asyncio.Event()

    async def endpoint(request: Request) -> None:
        await request.body()
        await replayed.fail_once()

    retry = RetryPolicy(
        first_wait=60,
        longest_wait=60,
        give_up_after=100,
        before_retry=lambda retry: gone.set(),
    )
    reply = await call(replayed.serve(endpoint, retry=retry), "POST", "/", gone=gone)

    assert (type(reply.error), replayed.attempts) == (Conflict, [1])


@FEW
async def test_an_attempt_that_was_told_so_is_the_last(replayed: Replayed) -> None:
    """Some servers say it once only."""
    messages = [
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def endpoint(request: Request) -> None:
        await request.receive()
        await request.receive()
        await replayed.fail_once()

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None: ...

    app = replayed.serve(endpoint)
    with pytest.raises(Conflict):
        await app(http_scope("POST", "/"), receive, send)

    assert replayed.attempts == [1]


@FEW
@pytest.mark.parametrize("serve", SERVERS)
async def test_behind_a_real_server(replayed: Replayed, serve: Serve) -> None:
    async def endpoint(data: dict[str, int]) -> dict[str, int]:
        await replayed.fail_once()
        return data

    app = replayed.serve(endpoint)
    async with (
        serve(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        reply = await client.post("/", json={"a": 1})
        assert (reply.status_code, reply.json()) == (200, {"a": 1})
        assert (await client.post("/", json={"a": 2})).json() == {"a": 2}

    assert replayed.attempts == [1, 2, 1]


@FEW
async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing(
    replayed: Replayed,
) -> None:
    waits = asyncio.Event()
    retry = RetryPolicy(
        first_wait=60,
        longest_wait=60,
        give_up_after=100,
        before_retry=lambda retry: waits.set(),
    )
    app = replayed.serve(replayed.fail_once, retry=retry)
    request = asyncio.create_task(call(app, "POST", "/"))
    await waits.wait()
    await asyncio.sleep(0)
    request.cancel()

    with pytest.raises(asyncio.CancelledError):
        await request
    assert replayed.attempts == [1]


@FEW
async def test_hundreds_of_attempts_are_no_deep_stack(replayed: Replayed) -> None:
    async def endpoint(request: Request) -> int:
        replayed.attempts.append(current_unit().attempt)
        await request.body()
        session = await replayed.flavour.db.session()
        await replayed.flavour.do(session, lambda s: add_item(s) and None)
        if len(replayed.attempts) < 500:
            raise Conflict
        return len(replayed.attempts)

    options = TransactionOptions(attempts=500)
    retry = RetryPolicy(longest_wait=0, give_up_after=100)
    app = replayed.serve(endpoint, options=options, retry=retry)

    assert (await send_chunks(app, b"one", b"two")).json == 500
    assert replayed.attempts == list(range(1, 501))


@only("asyncpg")  # a thread may hold on to what it has worked for
@pytest.mark.parametrize("used", [True, False])
async def test_a_request_that_may_be_run_again_is_freed_at_once(
    replayed: Replayed, used: bool
) -> None:
    units: list[ReferenceType[Any]] = []

    async def endpoint() -> None:
        units.append(ref(current_unit()))
        if used:
            session = await replayed.flavour.db.session()
            await replayed.flavour.do(session, names)

    app = replayed.serve(endpoint)
    await call(app, "POST", "/")  # a transport keeps the context that it is made in
    gc.collect()
    gc.disable()
    try:
        assert (await call(app, "POST", "/")).status == 200
        assert units[1]() is None
    finally:
        gc.enable()

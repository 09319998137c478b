"""What the article promises, with responses of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fastapi import Response
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy.orm import Session

from support.article import application
from support.asgi import Message, call
from support.flavours import Flavour, Observer
from support.models import add_item, names

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "static" / "page.txt"
    path.parent.mkdir()
    path.write_text("from the file")
    return path


async def nothing() -> AsyncIterator[bytes]:
    for chunk in ():
        yield chunk


RESPONSES: dict[str, tuple[Callable[[Path], Response], int, bytes]] = {
    "204": (lambda file: Response(status_code=204), 204, b""),
    "304": (lambda file: Response(status_code=304), 304, b""),
    "a redirect": (lambda file: RedirectResponse("/elsewhere", 303), 303, b""),
    "a file": (lambda file: FileResponse(file), 200, b"from the file"),
    "an empty stream": (lambda file: StreamingResponse(nothing()), 200, b""),
    "an empty body": (lambda file: Response(), 200, b""),
}


@pytest.mark.parametrize("kind", RESPONSES)
async def test_a_response_of_any_kind_is_passed_on_after_commit(
    flavour: Flavour, observer: Observer, file: Path, kind: str
) -> None:
    make, status, body = RESPONSES[kind]
    at_start: list[list[str]] = []

    def respond(session: Session) -> Response:
        add_item(session)
        return make(file)

    def look(message: Message) -> None:
        at_start.append(observer.names())

    app = application(flavour)
    app.post("/")(flavour.endpoint(respond))
    reply = await call(app, "POST", "/", on_message=look)

    assert (reply.status, reply.body, reply.error) == (status, body, None)
    assert reply.complete
    assert at_start[0] == ["one"]


async def test_head_is_served_like_get(flavour: Flavour, file: Path) -> None:
    app = application(flavour)

    def respond(session: Session) -> Response:
        return FileResponse(file, headers={"x-items": str(len(names(session)))})

    app.api_route("/", methods=["GET", "HEAD"])(flavour.endpoint(respond))
    reply = await call(app, "HEAD", "/")

    headers = dict(reply.starts[0]["headers"])
    assert (reply.status, reply.body, reply.complete) == (200, b"", True)
    assert (headers[b"x-items"], headers[b"content-length"]) == (b"0", b"13")


async def test_a_part_of_a_file_is_served(flavour: Flavour, file: Path) -> None:
    app = application(flavour)

    def respond(session: Session) -> Response:
        add_item(session)
        return FileResponse(file)

    app.get("/")(flavour.endpoint(respond))
    headers = [(b"range", b"bytes=5-7")]
    reply = await call(app, "GET", "/", headers=headers)

    assert (reply.status, reply.body, reply.complete) == (206, b"the", True)


async def test_a_file_may_be_left_to_the_server(
    flavour: Flavour, observer: Observer, file: Path
) -> None:
    app = application(flavour)

    def respond(session: Session) -> Response:
        add_item(session)
        return FileResponse(file)

    app.post("/")(flavour.endpoint(respond))
    extensions = {"http.response.pathsend": {}}
    reply = await call(app, "POST", "/", extensions=extensions)

    kinds = [message["type"] for message in reply.messages]
    assert kinds == ["http.response.start", "http.response.pathsend"]
    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["one"]


async def test_static_files_cost_no_session(flavour: Flavour, file: Path) -> None:
    app = application(flavour)
    app.mount("/static", StaticFiles(directory=file.parent))

    found = await call(app, "GET", "/static/page.txt")
    missed = await call(app, "GET", "/static/nothing.txt")

    assert (found.status, found.body) == (200, b"from the file")
    assert (missed.status, missed.complete) == (404, True)
    assert flavour.db.pool_status().idle == 0


async def test_what_is_not_found_or_not_allowed_is_answered_as_ever(
    flavour: Flavour,
) -> None:
    app = application(flavour)
    app.get("/")(flavour.endpoint(names))

    assert (await call(app, "GET", "/nowhere")).status == 404
    assert (await call(app, "POST", "/")).status == 405
    assert flavour.db.pool_status().idle == 0

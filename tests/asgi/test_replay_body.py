"""What a second attempt finds: the body of the request, as it was before the first."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import Form, UploadFile
from starlette.requests import Request

from support.conflicts import Conflict
from support.flavours import FEW
from support.models import add_item
from support.replaying import Replayed, send_chunks
from unitwork import TransactionOptions, current_unit
from unitwork.retry import RetryPolicy

pytestmark = pytest.mark.anyio


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

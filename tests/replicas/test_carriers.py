"""Carriers of tokens: several cookies and headers at once, and one that fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.flavours import Flavour, Observer
from support.models import add_item
from support.replicated import SECRET
from unitwork import DBSessionMiddleware, UsageError
from unitwork._driver.wal_position import WalPosition
from unitwork._replicas.position import Position, decode, encode
from unitwork.replicas import SignedCookie, SignedHeader

pytestmark = pytest.mark.anyio

OLD, NEW = (
    encode({"default": Position(WalPosition(1, 1, lsn), 4e9)}) for lsn in (5, 7)
)


def sent_by(carrier: Any, token: str) -> bytes:
    """What a client sends back after *carrier* has written *token*."""
    (header,) = carrier.write({}, token)
    value: bytes = header[1].split(b";")[0]
    return value


def position_in(token: str | None) -> int | None:
    at = decode(token or "")["default"].at
    return at.lsn if isinstance(at, WalPosition) else None


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)])
def test_of_two_cookies_the_later_position_counts(order: tuple[str, str]) -> None:
    carrier = SignedCookie(SECRET)
    cookies = b"; ".join(sent_by(carrier, token) for token in order)

    assert position_in(carrier.read({"headers": [(b"cookie", cookies)]})) == 7


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)])
def test_of_two_headers_the_later_position_counts(order: tuple[str, str]) -> None:
    carrier = SignedHeader(SECRET)
    values = [sent_by(carrier, token) for token in order]
    headers = [(b"x-database-token", value) for value in values]
    joined = [(b"x-database-token", b", ".join(values))]

    assert position_in(carrier.read({"headers": headers})) == 7
    assert position_in(carrier.read({"headers": joined})) == 7


def test_a_forged_cookie_beside_a_right_one_is_ignored() -> None:
    carrier = SignedCookie(SECRET)
    forged = sent_by(SignedCookie("another secret of 16"), NEW)
    cookies = forged + b"; " + sent_by(carrier, OLD)

    assert carrier.read({"headers": [(b"cookie", cookies)]}) == OLD


def test_a_cookie_for_other_sites_is_secure() -> None:
    (header,) = SignedCookie(SECRET, samesite="none").write({"scheme": "http"}, OLD)

    assert header[1].endswith(b"; Secure")
    with pytest.raises(UsageError, match="needs HTTPS"):
        SignedCookie(SECRET, samesite="none", secure=False)


def test_a_token_with_an_impossible_time_is_none() -> None:
    with pytest.raises(UsageError, match="is no token"):
        decode("64.1." + "f" * 400)


class Failing:
    """A carrier whose store is out of reach."""

    def read(self, scope: Mapping[str, Any]) -> str | None:
        return None

    def write(self, scope: Mapping[str, Any], token: str) -> Any:
        raise ConnectionError("the store is out of reach")


class FailingToRead(Failing):
    def read(self, scope: Mapping[str, Any]) -> str | None:
        raise ConnectionError("the store is out of reach")


class Wrong(Failing):
    def write(self, scope: Mapping[str, Any], token: str) -> Any:
        return [("x-token", token)]


@pytest.mark.parametrize("carrier", [Failing(), FailingToRead(), Wrong()])
async def test_what_is_stored_is_a_success_though_its_token_is_lost(
    replicated: Flavour, carrier: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def write(session: Session) -> None:
        add_item(session)

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=replicated.db, read_your_writes=carrier)
    app.post("/items", status_code=201)(replicated.endpoint(write))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.post("/items")

    assert reply.status_code == 201
    assert Observer(replicated.url).names() == ["one"]
    failures = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert ["carrier has failed" in each.message for each in failures] == [True]

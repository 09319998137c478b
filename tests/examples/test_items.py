"""The items application, async and sync, over HTTP and on every driver."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy.exc import IntegrityError

from support.databases import check_nothing_is_left, url_of
from support.flavours import ASYNC, EVERY, SYNC, Flavour, Observer

LAMP = {"name": "Lamp", "price": 35.5, "tax": 3.25, "owner_id": 1}
TOO_MUCH_TAX = {**LAMP, "tax": 35.51}


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Start *app*, as a server does, and stop it."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    life = asyncio.create_task(app(scope, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert await outbox.get() == {"type": "lifespan.startup.complete"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    await inbox.put({"type": "lifespan.shutdown"})
    assert await outbox.get() == {"type": "lifespan.shutdown.complete"}
    await life


class Items(NamedTuple):
    client: httpx.AsyncClient
    flavour: Flavour
    models: Any


class Application(NamedTuple):
    app: Any
    db: Any
    models: Any


@cache
def load(package: str, url: str) -> Application:
    """Import a copy of the application of its own for the database at *url*."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        for module in [each for each in sys.modules if each.startswith("examples.")]:
            patch.delitem(sys.modules, module)
        return Application(
            import_module(f"{package}.app").app,
            import_module(f"{package}.database").db,
            import_module("examples.items.models"),
        )


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("items")


@pytest.fixture(params=EVERY)
async def items(
    request: pytest.FixtureRequest, home: Path, anyio_backend: str
) -> AsyncIterator[Items]:
    """The application of this driver's colour, served on an empty database."""
    name: str = request.param
    url = url_of(name, request, home)
    package = "examples.items" if name in ASYNC else "examples.items_sync"
    app, db, models = load(package, url)
    flavour = Flavour(name, url, db)
    await flavour.work(lambda s: models.Base.metadata.drop_all(s.connection()))
    async with served(app) as client:
        yield Items(client, flavour, models)
        await check_nothing_is_left(flavour)


@pytest.fixture
async def client(items: Items) -> httpx.AsyncClient:
    """A client of the application, in which Ada is owner 2 and has no items."""
    ada = await items.client.post("/owners/", json={"name": "Ada"})
    assert (ada.status_code, ada.json()) == (201, {"name": "Ada", "id": 2})
    return items.client


either_copy = pytest.mark.parametrize("items", ["aiosqlite", "sqlite3"], indirect=True)
"""For requests that get no further than the schemas."""


async def stored(client: httpx.AsyncClient) -> Any:
    response = await client.get("/items/")
    assert response.status_code == 200
    return response.json()


def test_runs_each_copy_with_all_its_drivers() -> None:
    assert sorted(ASYNC + SYNC) == sorted(EVERY)


async def test_an_item_is_created_and_read(client: httpx.AsyncClient) -> None:
    created = await client.post("/items/", json=LAMP)
    read = await client.get("/items/1")

    assert (created.status_code, read.status_code) == (201, 200)
    assert created.json() == {**LAMP, "description": None, "id": 1}
    assert read.json() == created.json()
    assert await stored(client) == [created.json()]


async def test_an_item_without_an_owner_gets_the_default_one(
    client: httpx.AsyncClient,
) -> None:
    created = await client.post("/items/", json={"name": "Lamp", "price": 35.5})

    assert (created.status_code, created.json()["owner_id"]) == (201, 1)


async def test_a_change_leaves_alone_what_it_does_not_mention(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/items/", json={**LAMP, "description": "of brass"})

    changes = {"price": 20, "description": None}
    changed = await client.patch("/items/1", json=changes)

    assert changed.status_code == 200
    assert changed.json() == {**LAMP, **changes, "id": 1}
    assert await stored(client) == [changed.json()]


async def test_a_deleted_item_is_gone(client: httpx.AsyncClient) -> None:
    await client.post("/items/", json=LAMP)

    deleted = await client.delete("/items/1")

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert await stored(client) == []


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("number", [1, 2**31 - 1])
async def test_an_item_that_is_not_there_is_404(
    client: httpx.AsyncClient, method: str, number: int
) -> None:
    response = await client.request(method, f"/items/{number}", json={})

    assert response.status_code == 404
    assert response.json() == {"detail": f"There is no item {number}."}


@either_copy
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "  "),
        ("name", "x" * 101),
        ("name", "\0"),
        ("name", "\ud800"),
        ("name", None),
        ("description", "x" * 1001),
        ("price", 0),
        ("price", 0.001),
        ("price", 100_000_000),
        ("price", 1e99),
        ("price", float("inf")),
        ("price", float("nan")),
        ("tax", -0.01),
        ("tax", float("-inf")),
        ("owner_id", 0),
        ("owner_id", 2**31),
        ("owner_id", 10**100),
        ("owner_id", "Ada"),
    ],
)
async def test_a_value_that_makes_no_sense_is_422_and_names_the_field(
    client: httpx.AsyncClient, field: str, value: object
) -> None:
    body = json.dumps({**LAMP, field: value})  # httpx would refuse some of them

    response = await client.post(
        "/items/", content=body, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 422
    assert [each["loc"] for each in response.json()["detail"]] == [["body", field]]
    assert await stored(client) == []


@either_copy
@pytest.mark.parametrize(
    "path",
    [
        "/items/0",
        "/items/-1",
        "/items/2147483648",
        "/items/" + "9" * 100,
        "/items/lamp",
        "/items/?skip=-1",
        "/items/?skip=2147483648",
        "/items/?skip=" + "9" * 100,
        "/items/?limit=0",
        "/items/?limit=101",
    ],
)
async def test_a_number_out_of_range_is_422(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.get(path)

    assert response.status_code == 422
    assert response.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/owners/", {"name": "Ada"}),
        ("POST", "/items/", TOO_MUCH_TAX),
        ("POST", "/items/", {**LAMP, "owner_id": 3}),
        ("PATCH", "/items/1", {"name": "Candle", "tax": 35.51}),
        ("PATCH", "/items/1", {"name": "Candle", "owner_id": 3}),
        ("PATCH", "/items/1", {"name": "Candle", "price": None}),
    ],
)
async def test_what_only_the_database_can_refuse_is_409_and_leaves_nothing_behind(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]
) -> None:
    before = [(await client.post("/items/", json=LAMP)).json()]

    response = await client.request(method, path, json=body)

    assert response.status_code == 409
    assert response.headers["Content-Type"] == "application/problem+json"
    assert await stored(client) == before


@pytest.mark.parametrize(
    "wrong",
    [{"name": " "}, {"price": 0}, {"tax": -1}, {"tax": 36}, {"owner_id": 3}],
    ids=str,
)
async def test_the_database_holds_its_rules_without_the_application(
    client: httpx.AsyncClient, items: Items, wrong: dict[str, Any]
) -> None:
    row = items.models.Item(**LAMP | wrong)

    with pytest.raises(IntegrityError):
        await items.flavour.work(lambda session: session.add(row))

    assert await stored(client) == []


async def test_pages_follow_each_other(client: httpx.AsyncClient) -> None:
    for name in "abcde":
        await client.post("/items/", json={**LAMP, "name": name})
    await client.patch("/items/1", json={"price": 99})

    pages = [await client.get(f"/items/?skip={n}&limit=2") for n in (0, 2, 4, 6)]

    names = [[item["name"] for item in page.json()] for page in pages]
    assert names == [["a", "b"], ["c", "d"], ["e"], []]


async def test_twenty_at_once_are_all_stored(client: httpx.AsyncClient) -> None:
    bodies = [{**LAMP, "name": str(n)} for n in range(20)]

    replies = await asyncio.gather(*(client.post("/items/", json=b) for b in bodies))

    assert [reply.status_code for reply in replies] == [201] * 20
    made = sorted((reply.json() for reply in replies), key=lambda item: item["id"])
    assert await stored(client) == made


async def test_one_of_many_who_delete_an_item_is_told_so(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/items/", json=LAMP)

    replies = await asyncio.gather(*(client.delete("/items/1") for _ in range(20)))

    assert sorted(reply.status_code for reply in replies) == [204] + [404] * 19


async def test_a_change_and_a_deletion_at_once_never_fail(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/items/", json=LAMP)

    changes = [client.patch("/items/1", json={"price": 40 + n}) for n in range(10)]
    *changed, deleted = await asyncio.gather(*changes, client.delete("/items/1"))

    assert {reply.status_code for reply in changed} <= {200, 404}
    assert deleted.status_code == 204
    assert await stored(client) == []


class Witness(logging.Handler):
    """Looks, whenever something is logged, at what everybody can see."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer
        self.seen: list[tuple[str, list[Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        names = self.observer._query("SELECT name FROM items")
        self.seen.append((record.getMessage(), names))


async def test_an_item_is_announced_when_everybody_can_see_it(
    client: httpx.AsyncClient, items: Items, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("examples")
    witness = Witness(Observer(items.flavour.url))
    log.addHandler(witness)

    with caplog.at_level("INFO", logger="examples"):
        await client.post("/items/", json=LAMP)
        await client.post("/items/", json=TOO_MUCH_TAX)
    log.removeHandler(witness)

    assert witness.seen == [("item 1 is stored", [("Lamp",)])]


async def test_the_documentation_shows_what_clients_send_and_no_more(
    client: httpx.AsyncClient,
) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]

    parameters = paths["/items/"]["get"]["parameters"]
    assert [each["name"] for each in parameters] == ["skip", "limit"]
    assert "parameters" not in paths["/items/"]["post"]

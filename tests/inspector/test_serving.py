"""The inspector as a part of an application: pages, files, headers, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from support.asgi import call
from support.flavours import Flavour, only
from support.inspecting import BROWSER, LOCAL, get, inspected, look
from support.manual import ROOT
from unitwork import AsyncDatabase, UsageError
from unitwork.inspector import Inspector

pytestmark = only("aiosqlite")
PAGES = ["", "live", "timeline", "outcomes", "unit/1"]
FILES = ["inspector.css", "inspector.js", "charts.js", "dom.js", "icon.svg"]
STATIC = ROOT / "src/unitwork/_inspector/static"


@pytest.mark.parametrize("path", PAGES)
async def test_serves_each_page_under_a_strict_policy(
    flavour: Flavour, path: str
) -> None:
    with inspected(flavour) as app:
        reply = await get(app, path, headers=BROWSER)

    headers = dict(reply.starts[0]["headers"])
    assert reply.status == 200
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    assert b"unsafe" not in headers[b"content-security-policy"]
    assert b"{up}" not in reply.body


@pytest.mark.parametrize("name", FILES)
async def test_serves_each_file(flavour: Flavour, name: str) -> None:
    with inspected(flavour) as app:
        reply = await get(app, f"assets/{name}")

    assert reply.body == (STATIC / name).read_bytes()


def test_all_files_together_are_small(flavour: Flavour) -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) <= 60_000


@pytest.mark.parametrize("path", ["assets/page.html", "assets/../inspector.py", "x"])
async def test_serves_nothing_else(flavour: Flavour, path: str) -> None:
    with inspected(flavour) as app:
        assert (await get(app, path)).status == 404


@pytest.mark.parametrize("path", [*PAGES, "live.json", "assets/inspector.css"])
async def test_a_refused_client_gets_what_an_unknown_path_gets(
    flavour: Flavour, path: str
) -> None:
    with inspected(flavour, allow=lambda request: False) as app:
        reply = await get(app, path)
        unknown = await call(app, "GET", "/nothing", headers=LOCAL)

    assert (reply.messages, reply.status) == (unknown.messages, 404)


async def test_another_machine_is_refused_by_default(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        reply = await get(app, "live.json", client=("10.0.0.7", 1))

    assert (reply.status, reply.json) == (404, {"detail": "Not Found"})


async def test_can_be_mounted_in_starlette(flavour: Flavour) -> None:
    inspector = Inspector(flavour.db, allow=lambda request: request.method == "GET")
    app = Starlette(routes=[Mount("/units", inspector)])

    assert (await get(app, "live.json")).status == 200
    assert (await call(app, "POST", "/units/live.json")).body == b"Not Found"
    inspector.close()


async def test_serves_without_any_framework(flavour: Flavour) -> None:
    inspector: Any = Inspector(flavour.db)

    reply = await call(inspector, "GET", "/live.json", headers=LOCAL)
    refused = await call(inspector, "GET", "/live.json")
    inspector.close()

    assert (reply.status, refused.status) == (200, 404)


async def test_leads_to_its_root(flavour: Flavour) -> None:
    inspector: Any = Inspector(flavour.db)

    reply = await call(inspector, "GET", "/units", root_path="/units", headers=LOCAL)
    inspector.close()

    assert dict(reply.starts[0]["headers"])[b"location"] == b"units/"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_changes_nothing(flavour: Flavour, method: str) -> None:
    with inspected(flavour) as app:
        reply = await call(app, method, "/units/live.json", headers=LOCAL)

    assert (reply.status, reply.body) == (405, b"")


async def test_its_own_requests_are_no_units(flavour: Flavour) -> None:
    def allow(request: Any) -> bool:
        return bool(flavour.db.current)  # which makes a unit

    with inspected(flavour, allow=allow) as app:
        for _ in range(2):
            live = await look(app, "live")
        timeline = await look(app, "timeline")

    assert (live["units"], timeline["units"]) == ([], [])
    assert live["databases"][0]["in_use"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"db": []}, "db is empty"),
        ({"db": object()}, "db is an object"),
        ({"keep": 0}, "keep is 0"),
        ({"allow": "everyone"}, "allow"),
    ],
)
def test_refuses_arguments_that_can_not_work(
    flavour: Flavour, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Inspector(**{"db": flavour.db, **arguments})


def test_refuses_two_databases_of_one_name(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match="one name"):
        Inspector([flavour.db, AsyncDatabase("sqlite+aiosqlite://")])

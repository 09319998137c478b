"""An inspector at two paths, and two inspectors of one database."""

from __future__ import annotations

import asyncio
import gc
from weakref import ref

from fastapi import FastAPI
from starlette.requests import Request

from support.asgi import call
from support.flavours import Flavour, only
from support.inspecting import LOCAL
from support.models import add_item, names
from unitwork import AsyncDatabase, DBSessionMiddleware
from unitwork._unit.database_base import core_of
from unitwork.inspector import Inspector

pytestmark = only("aiosqlite")


def app_of(flavour: Flavour, **inspectors: Inspector) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/items")(flavour.endpoint(lambda session: add_item(session).id))
    for path, inspector in inspectors.items():
        app.mount(f"/{path}", inspector)
    return app


async def recorded(app: FastAPI, path: str) -> list[str]:
    reply = await call(app, "GET", f"/{path}/timeline.json", headers=LOCAL)
    assert reply.status == 200
    return [unit["name"] for unit in reply.json["units"]]


async def test_two_of_one_application_record_each_unit_once(flavour: Flavour) -> None:
    inspectors = {"one": Inspector(flavour.db), "two": Inspector(flavour.db)}
    app = app_of(flavour, **inspectors)
    await call(app, "POST", "/items")

    assert await recorded(app, "one") == ["POST /items"]
    assert await recorded(app, "two") == ["POST /items"]
    for each in inspectors.values():
        each.close()


async def test_the_end_of_one_leaves_the_other_recording(flavour: Flavour) -> None:
    first, second = Inspector(flavour.db), Inspector(flavour.db)
    app = app_of(flavour, first=first, second=second)
    first.close()
    first.close()
    await call(app, "POST", "/items")

    assert await recorded(app, "first") == []
    assert await recorded(app, "second") == ["POST /items"]
    second.close()


async def test_two_applications_may_have_one_each_of_a_database(
    flavour: Flavour,
) -> None:
    first, second = Inspector(flavour.db), Inspector(flavour.db)
    app, other = app_of(flavour, units=first), app_of(flavour, units=second)
    await call(app, "POST", "/items")

    assert await recorded(app, "units") == await recorded(other, "units")
    assert len(await recorded(other, "units")) == 1
    first.close()
    second.close()


async def test_requests_of_one_at_two_paths_are_recorded_at_neither(
    flavour: Flavour,
) -> None:
    both = asyncio.Barrier(2)

    async def allow(request: Request) -> bool:
        await both.wait()  # so that they overlap
        await flavour.db.current.run_sync(names)
        return True

    inspector = Inspector(flavour.db, allow=allow)
    app = app_of(flavour, one=inspector, two=inspector)
    await asyncio.gather(recorded(app, "one"), recorded(app, "two"))

    first, second = await asyncio.gather(recorded(app, "one"), recorded(app, "two"))
    assert first == second == []
    inspector.close()


async def test_one_that_is_closed_is_not_kept(flavour: Flavour) -> None:
    second = AsyncDatabase(flavour.url, name="second")
    inspector = Inspector([flavour.db, second])
    other = Inspector(second)
    [registration] = core_of(flavour.db).observers
    recorder = ref(registration.observer)
    del registration
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=[flavour.db, second])
    app.get("/")(flavour.endpoint(names))
    await call(app, "GET", "/")

    inspector.close()
    other.close()
    del inspector
    gc.collect()

    await second.dispose()
    assert recorder() is None

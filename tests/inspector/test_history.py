"""The timeline and the outcomes: how the last units have ended."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from sqlalchemy import text

from support.asgi import call
from support.flavours import FEW, Flavour
from support.inspecting import inspected, last_unit, look
from support.models import add_item
from unitwork import transactional
from unitwork.testing import CommitFault, commit_faults, no_waits


def ends(unit: Any) -> dict[str, float]:
    return {kind: end for kind, _, end, _ in unit["segments"]}


async def test_commit_ends_before_the_response_starts(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        await call(app, "POST", "/items/one")
        unit = await last_unit(app)

    assert (unit["name"], unit["outcome"]) == ("POST /items/{name}", "committed")
    assert 0 < ends(unit)["statement"] < ends(unit)["commit"] <= ends(unit)["start"]


@FEW
async def test_an_error_response_is_rolled_back(flavour: Flavour) -> None:
    await flavour.work(add_item)
    with inspected(flavour) as app:
        reply = await call(app, "POST", "/items/one")
        unit = await last_unit(app)

    assert (unit["outcome"], unit["status"]) == ("rolled back", reply.status)
    assert "IntegrityError" in unit["reason"]
    assert "rollback" in ends(unit)


@FEW
async def test_a_commit_without_an_answer_is_unknown(unsure: Flavour) -> None:
    with inspected(unsure) as app, commit_faults(unsure.db, CommitFault.COMMITTED):
        await call(app, "POST", "/items/one")
        unit = await last_unit(app)

    assert (unit["outcome"], unit["status"]) == ("unknown", 500)
    assert "unknown" in ends(unit)
    assert "commit" not in ends(unit)


@FEW
async def test_a_retried_request_is_one_unit_for_each_attempt(flavour: Flavour) -> None:
    with inspected(flavour) as app, no_waits():
        tries = iter(["40001", None])
        endpoint = transactional(attempts=2)(flavour.endpoint(add_item_unless(tries)))
        app.post("/again")(endpoint)
        await call(app, "POST", "/again")
        units = (await look(app, "timeline", "?outcome=retried"))["units"]

    assert [(each["attempt"], each["outcome"]) for each in units] == [
        (2, "committed"),
        (1, "rolled back"),
    ]
    assert units[1]["retried"]


def add_item_unless(tries: Any) -> Any:
    def body(session: Any) -> int:
        item = add_item(session)
        if next(tries) is not None:
            raise SerializationFailure
        return item.id

    return body


class SerializationFailure(Exception):
    sqlstate = "40001"


@FEW
async def test_a_background_task_is_a_unit_of_its_request(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        _add_background_route(app, flavour)
        await call(app, "POST", "/later")
        units = (await look(app, "timeline"))["units"]
        parent = next(each for each in units if each["kind"] == "request")
        full = (await look(app, f"unit/{parent['id']}"))["unit"]

    assert [each["parent"] for each in full["children"]] == [parent["id"]]


def _add_background_route(app: FastAPI, flavour: Flavour) -> None:
    @app.post("/later")
    async def later(tasks: BackgroundTasks) -> None:
        await flavour.do(flavour.db.current, add_item)
        tasks.add_task(flavour.work, lambda session: add_item(session, "two").id)


@FEW
async def test_filters_by_route_and_outcome(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        await call(app, "POST", "/items/one")
        await call(app, "POST", "/items/one")
        await call(app, "GET", "/items")
        routes = (await look(app, "timeline", "?route=GET%20/items"))["units"]
        outcomes = (await look(app, "timeline", "?outcome=rolled+back"))["units"]

    assert [each["name"] for each in routes] == ["GET /items"]
    assert [each["name"] for each in outcomes] == ["POST /items/{name}"]


@FEW
async def test_keeps_the_last_units_only(flavour: Flavour) -> None:
    with inspected(flavour, keep=2) as app:
        for name in "abc":
            await call(app, "POST", f"/items/{name}")
        units = (await look(app, "timeline"))["units"]
        outcomes = await look(app, "outcomes")

    assert len(units) == 2
    assert outcomes["routes"][0]["units"] == 3


@FEW
async def test_gives_only_what_has_changed_since(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        await call(app, "POST", "/items/one")
        first = await look(app, "timeline")
        await call(app, "POST", "/items/two")
        second = await look(app, "timeline", f"?since={first['version']}")

    assert len(second["units"]) == 1
    assert len(second["kept"]) == 2


@FEW
@pytest.mark.parametrize("show_sql", [True, False])
async def test_shows_no_value_and_no_parameter(
    flavour: Flavour, show_sql: bool
) -> None:
    def body(session: Any) -> None:
        session.execute(
            text("SELECT 'secret-literal', :it"), {"it": "secret-parameter"}
        )

    with inspected(flavour, show_sql=show_sql) as app:
        app.get("/secret")(flavour.endpoint(body))
        await call(app, "GET", "/secret")
        number = (await last_unit(app))["id"]
        full = str(await look(app, f"unit/{number}"))

    assert "secret-" not in full
    assert ("SELECT ?" in full) is show_sql


@FEW
async def test_counts_outcomes_by_route_and_reason(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        for _ in range(2):
            await call(app, "POST", "/items/one")
        outcomes = await look(app, "outcomes")

    [route] = outcomes["routes"]
    assert route["outcomes"]["committed"] == route["outcomes"]["rolled back"] == 1
    assert route["commit"]["count"] == 1
    assert route["held"]["count"] == 2
    assert [each["count"] for each in outcomes["reasons"]] == [1, 1]


@FEW
async def test_a_unit_that_is_not_known_is_a_404_as_json(flavour: Flavour) -> None:
    with inspected(flavour) as app:
        reply = await call(
            app, "GET", "/units/unit/99.json", headers=[(b"host", b"::1")]
        )

    assert reply.status == 404

"""What is committed, and what is rolled back, by default and otherwise."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.manual import Page
from support.pages import statements
from unitwork import Ending, UsageError

BEFORE_POLICIES = "For all requests"


def test_drops_a_dry_run_and_keeps_a_failed_log_in(page: Page) -> None:
    main = page.run(up_to=BEFORE_POLICIES)

    with TestClient(main.app) as client:
        dry = client.post("/import?dry_run=true").json()
        stored_dry = client.get("/items/").json()
        wet = client.post("/import?dry_run=false").json()
        refused = client.post("/log-in").status_code
        stored = client.get("/items/").json()

    assert (dry, stored_dry) == (1, [])
    assert (wet, refused, stored) == (1, 401, ["imported", "failed attempt"])
    page.run()


def test_sends_what_the_page_shows_for_a_savepoint(page: Page) -> None:
    main = page.run(up_to=BEFORE_POLICIES)

    with TestClient(main.app) as client:
        with statements(main.db.engine) as sent:
            assert client.post("/risky").status_code == 200
        assert client.get("/items/").json() == ["kept"]

    [shown] = re.findall(r"(?s)```sql\n(.*?)```", page.text)
    verbs = [line.split()[0] for line in shown.splitlines()]
    assert [sql.split()[0] for sql in sent] == verbs
    page.run()


def test_commits_by_the_policy_of_the_application(page: Page) -> None:
    main = page.run()
    main.app.get("/items/")(main.names)

    with TestClient(main.app) as client:
        assert client.post("/webhooks/payment").status_code == 422
        assert client.get("/items/").json() == ["payment"]


def test_has_other_policies_that_do_what_their_names_say(page: Page) -> None:
    main = page.run()
    error, found, moved = Ending(status=500), Ending(status=404), Ending(status=303)

    assert not main.by_status_alone(error)
    assert main.by_status_alone(moved)
    assert main.by_exception_alone(found)
    assert not main.by_exception_alone(Ending(status=200, exception=LookupError()))
    assert not main.no_redirects(moved)
    assert main.no_redirects(Ending(status=204))


def test_refuses_a_policy_that_is_a_coroutine_function(page: Page) -> None:
    main = page.run()

    async def waits(ending: Any) -> bool:
        return True

    with pytest.raises(UsageError):
        main.DBSessionMiddleware(main.app, main.db, commit_when=waits)


def test_lists_every_attribute_of_an_ending(page: Page) -> None:
    page.run()

    table = page.text.partition("| attribute of")[2].partition("\n\n")[0]
    listed = re.findall(r"`(\w+)`", table.partition("|---|")[2])
    assert set(listed) - {"None"} == set(inspect.signature(Ending).parameters)

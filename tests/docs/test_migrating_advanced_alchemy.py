"""Advanced Alchemy, whose repositories stay."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from support.manual import Page, read
from support.migrated import send_items
from unitwork.testing import commit_faults


def with_endpoints(page: Page, up_to: str) -> Any:
    """The application *up_to* a heading, with the endpoints that follow `After`."""
    main = page.run(up_to=up_to)
    last = [each for each in read(page.text).blocks if "ItemsDep" in each.source][-1]
    exec(compile(last.source, page.path, "exec", dont_inherit=True), vars(main))
    return main


def test_the_endpoints_stay(page: Page) -> None:
    before = with_endpoints(page, "After")
    assert send_items(before.app) == ([201, 400], ["lamp"])

    after = page.run()
    assert send_items(after.app) == ([201, 400], ["lamp", "lamp"])


def test_a_commit_that_fails_is_a_success_before_and_an_error_after(page: Page) -> None:
    failure = IntegrityError("COMMIT", None, Exception("deferred"))

    def fail(*_: object) -> None:
        raise failure

    before = with_endpoints(page, "After")
    with TestClient(before.app, raise_server_exceptions=False) as client:
        session = before.AsyncSession.sync_session_class
        event.listen(session, "before_commit", fail)
        lost = client.post("/items/?name=lost")
        event.remove(session, "before_commit", fail)
        stored = client.get("/items/").json()
    after = page.run()
    client = TestClient(after.app, raise_server_exceptions=False)
    with client, commit_faults(after.db, failure):
        refused = client.post("/items/?name=lost")

    assert (lost.status_code, stored) == (201, [])
    assert refused.status_code == 500

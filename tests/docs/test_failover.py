"""When the primary is lost: the URLs name all servers."""

from __future__ import annotations

import pytest

from support.manual import Page
from unitwork import LogPositionVerifier


def test_each_url_is_one_that_its_driver_accepts(page: Page) -> None:
    main = page.run()

    urls = [main.async_db.engine.url, main.db.engine.url, main.verified_db.engine.url]

    assert all(url.query["target_session_attrs"] == "read-write" for url in urls)


@pytest.mark.parametrize("name", ["async_db", "db"])
def test_drivers_get_three_hosts(page: Page, name: str) -> None:
    engine = getattr(page.run(), name).engine

    _, options = engine.dialect.create_connect_args(engine.url)

    hosts = options["host"]
    assert len(hosts if isinstance(hosts, list) else hosts.split(",")) == 3


def test_the_verifier_is_in_the_settings(page: Page) -> None:
    settings = page.run().verified_db.settings

    assert isinstance(settings.verify_commit, LogPositionVerifier)

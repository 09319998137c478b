"""The tables of the page are what its functions compute, and what a server answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.manual import Page
from support.page_tables import rows
from support.pages import postgresql


@pytest.fixture
def main(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with postgresql("asyncpg") as url:
        monkeypatch.setenv("DATABASE_URL", url)
        yield page.run()


def number(cell: str) -> float:
    return float(cell.split(" ")[0].replace(",", ""))


def test_adds_up_the_pools_of_all_processes(page: Page, main: Any) -> None:
    for *factors, total, enough in rows(page.text, "Hosts", "Workers on each"):
        assert main.connections(*map(int, factors)) == number(total)
        assert (number(total) <= 97) == (enough == "yes")


def test_multiplies_units_by_the_time_that_they_hold(page: Page, main: Any) -> None:
    for units, held, average in rows(page.text, "Units a second in one process"):
        seconds = number(held) / (1000 if held.endswith(" ms") else 1)
        assert main.in_use(number(units), seconds) == pytest.approx(number(average))


def test_the_server_says_how_many_processes_fit(client: TestClient) -> None:
    answer = client.get("/capacity").json()

    assert answer["size of the pool"] == 15
    assert answer["in use by this process"] == 1
    assert answer["in use by all clients"] >= 1
    assert answer["processes at most"] == answer["allowed by the server"] // 15


def test_works_out_a_million_requests_a_second(page: Page, main: Any) -> None:
    counts = [number(row[1]) for row in rows(page.text, "Part", "How many")]
    sums = [number(row[1]) for row in rows(page.text, "Connections of one server")]

    busy = [main.in_use(main.reads, 0.001), main.in_use(main.writes, 0.004)]
    assert counts == [main.hosts, *busy, main.replicas, main.primaries]
    assert sums == [main.with_defaults, main.direct, main.through_poolers]
    assert f"`default_pool_size = {main.pooler_size}`" in page.text
    assert f"Each PgBouncer has {main.clients} clients" in page.text
    assert f"It handles {main.per_second // 2 // main.hosts:,} trans" in page.text
    assert f"Only {sum(busy):.0f} connections" in page.text
    assert f"each of the {main.servers} servers" in page.text

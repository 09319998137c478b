"""The skill for coding agents, which is in the wheel: what it says is so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import unitwork
from support.manual import opened
from support.rendering import render

SKILL = Path(unitwork.__file__).parent / ".agents/skills/unitwork/SKILL.md"
TEXT = SKILL.read_text(encoding="utf-8")


@pytest.fixture
def skill() -> Iterator[ModuleType]:
    with opened(SKILL) as page:
        yield page.run()


async def send(skill: ModuleType, *requests: str) -> tuple[list[int], Any]:
    """The statuses of the requests, and the names of the items afterwards."""
    async with skill.test_client() as client:
        replies = [await client.request(*each.split()) for each in requests]
        listed = await client.get("/items/")
    return [reply.status_code for reply in replies], listed.json()


CREATE = "POST /items/?name=lamp"


@pytest.mark.parametrize(
    ("requests", "statuses", "stored"),
    [
        ([CREATE, CREATE], [201, 409], ["lamp"]),
        ([CREATE, "POST /items/1/sell"], [201, 409], ["lamp"]),
        (["POST /items/7/sell"], [404], []),
        (["POST /items/dry-run?name=lamp"], [200], []),
        (["POST /log-in"], [401], ["failed log-in"]),
        ([CREATE, "POST /items/1/rename?name=sofa"], [201, 200], ["sofa"]),
        ([CREATE, "GET /items/count"], [201, 200], ["lamp"]),
        (["POST /orders/?name=lamp"], [201], ["lamp"]),
    ],
)
def test_its_endpoints_do_what_it_says(
    skill: ModuleType, requests: list[str], statuses: list[int], stored: list[str]
) -> None:
    assert asyncio.run(send(skill, *requests)) == (statuses, stored)


def test_its_hook_runs_after_a_commit_only(skill: ModuleType) -> None:
    asyncio.run(send(skill, "POST /orders/?name=lamp", "POST /orders/?name=lamp"))

    assert skill.mails == ["lamp"]


def test_its_tests_leave_nothing_behind(skill: ModuleType) -> None:
    asyncio.run(send(skill, CREATE))

    assert asyncio.run(send(skill, CREATE)) == ([201], ["lamp"])


def test_its_block_works_outside_a_request(skill: ModuleType) -> None:
    async def run() -> int:
        async with skill.lifespan(skill.app):
            async with skill.db.transaction() as session:
                session.add(skill.Item(name="lamp"))
            await skill.restock("lamp", 3)
            async with skill.db.transaction() as session:
                item = await session.get_one(skill.Item, 1)
        await skill.db.dispose()
        return int(item.stock)

    assert asyncio.run(run()) == 3


def test_the_errors_it_names_are_there() -> None:
    names = re.findall(r"(?m)^\| `(\w+Error)` \|", TEXT)

    assert len(names) > 5
    assert [name for name in names if not hasattr(unitwork, name)] == []


def test_is_short_and_has_what_agents_look_for() -> None:
    assert len(TEXT.splitlines()) < 300
    assert re.match(r"---\nname: unitwork\ndescription: .+\n---\n", TEXT)
    assert all(link.target.startswith("http") for link in render(SKILL).links)

"""Many programs, several at once, in batches; after each batch a look at the table."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from anyio import to_thread
from fastapi.dependencies import models

from soak.generate import Generator
from soak.ledger import Ledger
from soak.left_behind import describe
from soak.play import play
from soak.program import Program
from soak.running import Running
from soak.stage import Stage, stages
from soak.tables import Outsider
from unitwork.testing import no_waits

BATCH = 250
LEG = 2_500
"""Programs on one event loop, with one pool; the next leg has others."""


@dataclass
class Violation:
    program: Program
    what: list[str]
    story: str = ""

    @property
    def kind(self) -> str:
        return self.what[0].partition(":")[0]


@dataclass
class Report:
    programs: int = 0
    reported: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    struck: int = 0
    violations: list[Violation] = field(default_factory=list)
    seconds: float = 0.0
    memory: list[tuple[int, float]] = field(default_factory=list)
    """After so many programs so many MB."""

    def of_kind(self, kind: str) -> int:
        return sum(each.kind == kind for each in self.violations)


@dataclass
class Run:
    """One run of a generator's programs against the database at *url*."""

    generator: Generator
    url: str
    at_once: int = 8
    progress: Callable[[Report], object] = lambda report: None
    patience: float = 1.0
    """The factor for all time limits."""
    release: str = "transaction"
    uvloop: bool = False
    """Whether every second leg runs on it."""
    happenings: Mapping[int, Callable[[], Awaitable[object]]] = field(
        default_factory=dict
    )
    """What happens, beside all else, just before the program of that number."""
    report: Report = field(default_factory=Report)
    ledger: Ledger | None = None
    """Set if the events have to add up."""

    def go(self, numbers: Iterable[int]) -> Report:
        started = time.monotonic()
        Outsider(self.url).create()
        waiting = iter(numbers)
        leg = 0
        while numbers_of_leg := list(islice(waiting, LEG)):
            with no_waits(), asyncio.Runner(loop_factory=self._loops(leg)) as runner:
                runner.run(self._leg(leg, numbers_of_leg))
            _forget_applications()
            leg += 1
        self.report.seconds = time.monotonic() - started
        return self.report

    def _loops(self, leg: int) -> Callable[[], asyncio.AbstractEventLoop] | None:
        if not self.uvloop or leg % 2 == 0:
            return None
        import uvloop

        return uvloop.new_event_loop

    async def _leg(self, leg: int, numbers: list[int]) -> None:
        if leg % 3 == 2 and sys.version_info >= (3, 12):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        pool = 4 if leg % 4 == 3 else 20
        async with stages(
            self.generator.driver,
            self.url,
            pool=pool,
            patience=self.patience,
            release=self.release,
        ) as (direct, behind):
            stops = self._observe(direct, behind)
            for start in range(0, len(numbers), BATCH):
                programs = map(self.generator.program, numbers[start : start + BATCH])
                await self._batch(list(programs), direct, behind)
                self.report.memory.append((self.report.programs, resident_megabytes()))
                self.progress(self.report)
            for stop in stops:
                stop()

    def _observe(self, *those: Stage) -> list[Callable[[], None]]:
        if self.ledger is None:
            return []
        return [self.ledger.observe(each.db) for each in set(those)]

    async def _batch(
        self, programs: list[Program], direct: Stage, behind: Stage
    ) -> None:
        done: list[Running] = []

        async def client(waiting: Iterator[Program]) -> None:
            for program in waiting:
                if happens := self.happenings.get(program.number):
                    await happens()
                stage = direct if program.fault is None else behind
                done.append(await play(stage, program, excused=bool(self.happenings)))

        waiting = iter(programs)
        async with asyncio.TaskGroup() as group:
            for _ in range(self.at_once):
                group.create_task(client(waiting))
        leaks = [*await direct.settle(), *await behind.settle()]
        left = [describe(each.engine) for each in (direct, behind) if leaks]
        outsider = direct.outsider
        table = await to_thread.run_sync(outsider.table)
        await to_thread.run_sync(outsider.empty)
        for running in done:
            self._note(running, table)
        if leaks:
            what = [f"leak: {each}" for each in dict.fromkeys(leaks)]
            numbers = f"{programs[0].number} to {programs[-1].number}"
            story = "\n".join([f"one of the programs {numbers}", *left])
            self.report.violations.append(Violation(programs[0], what, story))
            await direct.dispose()
            await behind.dispose()

    def _note(self, running: Running, table: Counter[str]) -> None:
        report = self.report
        report.programs += 1
        report.reported[running.reported] += 1
        report.operations.update(running.program.names)
        if wrong := running.books.violations(table):
            story = f"reported {running.reported}, {running.error!r:.300}"
            report.violations.append(Violation(running.program, wrong, story))
        if self.ledger is not None:
            self.ledger.retries += max(running.books.attempt - 1, 0)
            self.ledger.interrupted += running.books.interrupted
        report.struck += "'the fault has struck'" in str(running.books.failures)
        report.rows += sum(
            table[row] for claim in running.books.claims for row in claim.rows
        )


def _forget_applications() -> None:
    """Clear FastAPI's caches, which keep endpoints: here, those of each leg."""
    for cached in vars(models).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def run_alone(generator: Generator, url: str, program: Program) -> Violation | None:
    """Run one program with nothing beside it."""

    class Only(Generator):
        def program(self, number: int) -> Program:
            return program

    only = Only(generator.seed, generator.driver, generator.left_out)
    violations = Run(only, url, at_once=1).go([program.number]).violations
    return violations[0] if violations else None


def shrink(generator: Generator, url: str, violation: Violation) -> Violation | None:
    """The smallest program found with the same kind of violation; `None`: not again."""
    smallest = run_alone(generator, url, violation.program)
    if smallest is None or smallest.kind != violation.kind:
        return None
    shrinks = True
    while shrinks:
        shrinks = False
        for program in smallest.program.smaller():
            found = run_alone(generator, url, program)
            if found is not None and found.kind == violation.kind:
                smallest, shrinks = found, True
                break
    return smallest

"""Many requests at once, some of which meet a fault, and a verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

from anyio import to_thread

from faults.history import History, Report, Told, Work, told_by, told_by_start
from faults.plan import Case, Plan
from faults.stage import LIMIT, SETTINGS, Stage
from support.asgi import Message, Reply
from unitwork import DatabaseSettings

AT_ONCE = 8
BACK_OFF = 0.01
"""Seconds that a client waits after an error of the server, as clients do."""

Happenings = Mapping[int, Callable[[], Awaitable[object]]]
"""What happens, beside all else, just before the request of that number."""


class Run:
    """One run of *plan*. *plain*: on `Depends(get_db)`, and not on unitwork."""

    def __init__(
        self,
        driver: str,
        url: str,
        plan: Plan,
        *,
        plain: bool = False,
        settings: DatabaseSettings = SETTINGS,
        happenings: Happenings | None = None,
        progress: Callable[[Report], object] = lambda report: None,
    ) -> None:
        self._plan = plan
        self._plain = plain
        self._stage = Stage(driver, url, plain=plain, settings=settings)
        self._happenings = happenings or {}
        self._progress = progress
        self._report = Report()
        self._history = History(plan)

    async def go(self) -> Report:
        """Run it all, check, and report."""
        started = time.monotonic()
        report = self._report
        async with self._stage:
            cases = map(self._plan.case, range(self._plan.requests))
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._client(cases))
            report.leaked = await self._stage.settle()
        outsider = self._stage.outsider
        stored = await to_thread.run_sync(outsider.keys)
        report.lies = list(self._history.lies(stored))
        report.lies += await to_thread.run_sync(outsider.wrong_balances)
        report.ghosts = list(self._history.ghosts(stored))
        report.seconds = time.monotonic() - started
        return report

    async def _client(self, cases: Iterator[Case]) -> None:
        for case in cases:
            if happens := self._happenings.get(case.number):
                await happens()
            self._prepare(case)
            await self._request(case)
            self._report.requests += 1
            self._progress(self._report)

    def _prepare(self, case: Case) -> None:
        stage, struck = self._stage, partial(self._struck, case.kind)
        stage.meet(*filter(None, [case.fault]), struck=struck)
        if case.connect is not None:
            counted = struck if case.fault is None else lambda: None
            stage.meet_newcomer(case.connect, counted)
        if case.outage:
            self._struck(case.kind)
            stage.proxy.cut()
            stage.proxy.refusing = case.outage

    def _struck(self, kind: str) -> None:
        self._report.faults[kind] += 1

    async def _request(self, case: Case) -> None:
        seen: list[Message] = []
        gone = asyncio.Event()
        task = self._stage.start(f"/{case.path}/{case.key}{case.query}", seen, gone)

        def leave() -> None:
            gone.set()
            if case.path != "stream":
                task.cancel()

        left = False
        if case.leaves_after is not None:
            await asyncio.wait((task,), timeout=case.leaves_after)
            if left := not task.done():
                leave()
                if case.fault is None:
                    self._struck(case.kind)
        await asyncio.wait((task,), timeout=LIMIT)
        if not task.done():
            self._report.hung.append(str(case))
            left = True
            task.cancel()
            await asyncio.wait((task,), timeout=LIMIT)
        error = None
        if task.done() and not task.cancelled():
            error = task.exception() or task.result().error
        self._note(case, Reply(seen, error), left=left)
        if error is not None:
            await asyncio.sleep(BACK_OFF)

    def _note(self, case: Case, reply: Reply, *, left: bool) -> None:
        told = told_by(reply, left=left)
        self._report.told[told] += 1
        error = "" if reply.error is None else f"{reply.error!r:.300}"
        if case.path == "stream":
            # The usual pattern commits after it, and never claimed anything else.
            head = told if self._plain else told_by_start(reply, left=left)
            self._history.add(Work(case.number, "head", head, reply.status, error))
            self._history.add(Work(case.number, "tail", told, reply.status, error))
        elif case.path != "read":
            self._history.add(Work(case.number, "", told, reply.status, error))
        elif told is Told.UNKNOWN:
            self._report.needless.append(f"{case} -> {error}")

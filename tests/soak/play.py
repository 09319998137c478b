"""Plays one program: makes the request, waits, and notes how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from anyio import to_thread

from soak import operations  # noqa: F401 - registers them
from soak.actor import Actor, drive
from soak.model import fate_after
from soak.program import Program
from soak.running import Counted, Running
from soak.stage import Stage
from soak.structure import in_block
from support.asgi import http_scope


async def play(stage: Stage, program: Program, *, excused: bool = False) -> Running:
    """Run *program* to its end; *excused*: a failure needs no reason of its own."""
    running = Running(program)
    if excused:
        running.books.failed("something beside it")
    stage.running[program.number] = running
    if stage.lines is not None and program.fault is not None:
        struck = partial(running.books.failed, "the fault has struck")
        stage.lines.meet(program.fault, struck=struck)
    work = _work(stage, running)
    task: asyncio.Task[None]

    def cancel() -> None:
        running.interrupt()
        task.cancel()

    def leave() -> None:
        running.interrupt()
        running.left.set()

    if program.option == "deadline":
        running.interrupt()
    acts = {program.cancel_at: cancel, program.leave_at: leave}
    task = asyncio.create_task(_await(Counted(work, acts)))
    await asyncio.wait([task], timeout=stage.limit)
    if not task.done():
        running.books.wrong("hang: " + "".join(map(str, task.get_stack()[-1:])))
        running.interrupt()
        running.left.set()
        task.cancel()
        await asyncio.wait([task], timeout=stage.limit)
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if program.how in ("block", "run"):
        running.returned(error)
    elif not running.is_over:
        running.ended(error)  # it never came to the middleware
    del stage.running[program.number]
    return running


async def _await(work: Counted) -> None:
    await work


def _work(stage: Stage, running: Running) -> Coroutine[Any, Any, Any]:
    program = running.program
    if program.how == "block":
        return _outside(stage, partial(_in_block, stage, running))
    if program.how == "run":
        return _outside(stage, partial(_run, stage, running))
    app = stage.apps[program.base_inside, program.base_outside]
    return app(_scope(program), running.receive, running.send)


def _scope(program: Program) -> dict[str, Any]:
    where = {"plain": "plain", "websocket": "websocket"}.get(program.how)
    if where is None:
        where = program.option or ("injected" if program.injected else "current")
    scope = http_scope("POST", f"/{where}/{program.number}")
    scope["asgi"] = {"version": "3.0", "spec_version": program.spec_version}
    if program.how == "websocket":
        scope |= {"type": "websocket", "scheme": "ws", "subprotocols": []}
        del scope["method"]
    return scope


async def _outside(stage: Stage, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    if stage.is_async:
        await work()
    else:
        await to_thread.run_sync(lambda: drive(work()))


async def _in_block(stage: Stage, running: Running) -> None:
    await in_block(stage, running.books, running.program.ops)


async def _run(stage: Stage, running: Running) -> None:
    """By `db.run()`, each attempt in a unit of its own."""

    async def attempt(session: Any) -> None:
        unit = running.next_attempt()
        await Actor(stage, running.books, unit, session).run(running.program.ops)

    def sync_attempt(session: Any) -> None:
        drive(attempt(session))

    try:
        if stage.is_async:
            await stage.db.run(attempt, attempts=3)
        else:
            stage.db.run(sync_attempt, attempts=3)
    except BaseException as error:
        running.books.failed(error)
        running.unit.settle(fate_after(error), f"run() raised {error!r:.80}")
        raise
    running.unit.succeed("run() returned")

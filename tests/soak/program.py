"""Programs: what the generator draws, the driver runs, and the report prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

from faults.traps import Fault

How = Literal["endpoint", "plain", "websocket", "block", "run"]
"""A FastAPI endpoint, plain ASGI, a WebSocket, `transaction()`, `db.run()`."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operation; *body* and *handler* are those inside it."""

    name: str
    arg: str = ""
    body: tuple[Op, ...] = ()
    handler: tuple[Op, ...] = ()

    def inside(self) -> Iterator[Op]:
        yield self
        for each in (*self.body, *self.handler):
            yield from each.inside()


@dataclass(frozen=True, slots=True)
class Program:
    number: int
    how: How
    ops: tuple[Op, ...]
    """For a WebSocket each is a round."""
    status: int = 200
    chunks: tuple[tuple[Op, ...], ...] = ()
    """What a stream does before each chunk; empty: no stream."""
    background: tuple[Op, ...] | None = None
    answers_in_except: bool = False
    injected: bool = False
    """By `Depends(db.session)`, else `db.current`."""
    option: Literal["", "retry", "deadline"] = ""
    spec_version: str = "2.3"
    base_inside: bool = False
    base_outside: bool = False
    cancel_at: int = 0
    """At this suspension of its task; 0: never."""
    leave_at: int = 0
    fault: Fault | None = None

    @property
    def names(self) -> set[str]:
        """Of all operations in it."""
        tops = [*self.ops, *(self.background or ())]
        tops += [op for chunk in self.chunks for op in chunk]
        return {op.name for top in tops for op in top.inside()}

    def smaller(self) -> Iterator[Program]:
        """Yield programs that lack one thing each."""
        for name in ("background", "fault", "cancel_at", "leave_at", "option"):
            default = _DEFAULTS[name]
            if getattr(self, name) != default:
                yield replace(self, **{name: default})
        for ops in _smaller(self.ops):
            yield replace(self, ops=ops)
        for number, chunk in enumerate(self.chunks):
            before, after = self.chunks[:number], self.chunks[number + 1 :]
            yield replace(self, chunks=(*before, *after))
            for ops in _smaller(chunk):
                yield replace(self, chunks=(*before, ops, *after))
        for ops in _smaller(self.background or ()):
            yield replace(self, background=ops)
        for name in ("base_inside", "base_outside", "answers_in_except", "injected"):
            if getattr(self, name):
                yield replace(self, **{name: False})
        if self.spec_version != "2.3":
            yield replace(self, spec_version="2.3")

    def __str__(self) -> str:
        given = []
        for each in fields(self):
            value = getattr(self, each.name)
            shown = each.name not in ("ops", "chunks", "background", "number")
            if shown and value != _DEFAULTS.get(each.name):
                given.append(
                    f"{each.name}={value if each.name == 'fault' else repr(value)}"
                )
        lines = [f"program {self.number}: {', '.join(given)}", *_lines(self.ops)]
        if self.how in ("endpoint", "plain"):
            lines.append(
                f"    return {'stream' if self.chunks else 'answer'}({self.status})"
            )
        for chunk in self.chunks:
            lines += ["    # in the stream", *_lines(chunk), "    yield"]
        if self.background is not None:
            lines += ["    # background task", *_lines(self.background)]
        return "\n".join(lines)


_DEFAULTS = {each.name: each.default for each in fields(Program)}


def _smaller(ops: tuple[Op, ...]) -> Iterator[tuple[Op, ...]]:
    for at, op in enumerate(ops):
        before, after = ops[:at], ops[at + 1 :]
        yield (*before, *after)
        if op.name not in KEEP_BODY:
            yield from ((*before, *inside, *after) for inside in (op.body,) if inside)
        for body in _smaller(op.body):
            yield (*before, replace(op, body=body), *after)
        for handler in _smaller(op.handler):
            yield (*before, replace(op, handler=handler), *after)


KEEP_BODY = ("hook", "spawn", "round")
"""What is inside these makes no sense outside."""

TEXTS = {
    "add": "session.add(Row())",
    "add_flush": "session.add(Row()); await session.flush()",
    "insert": "await session.execute(insert(Row))",
    "text": "await session.execute(text({arg}))",
    "update": "await session.execute(update(Row))",
    "delete": "await session.execute(delete(Row))",
    "delete_orm": "await session.delete(row); await session.flush()",
    "read": "await session.scalars(select(Row))",
    "cursor": "result = await session.stream(select(...))",
    "duplicate": "session.add(Taken(id=1)); await session.flush()  # IntegrityError",
    "bad_statement": "await session.execute(text('SELECT no_such_thing'))",
    "orphan": "await session.execute(insert(Orphan))  # COMMIT will refuse",
    "conflict": "await session.execute(SERIALIZATION_FAILURE)  # until attempt {arg}",
    "raise": "raise {arg}",
    "sleep": "await asyncio.sleep({arg})",
    "kill": "pg_terminate_backend(ours)",
    "savepoint": "async with session.begin_nested():",
    "savepoint_by_hand": "sp = await session.begin_nested(); ...; await sp.{arg}()",
    "try": "try:",
    "block": 'async with db.transaction(nested="{arg}") as session:',
    "with_session": "async with session:",
    "begin": "async with session.begin():",
    "commit": "await session.commit()",
    "rollback": "await session.rollback()",
    "close": "await session.close()",
    "rollback_only": "unit.rollback_only()",
    "commit_anyway": "unit.commit_anyway()",
    "hook": "@unit.{arg}",
    "spawn": 'asyncio.create_task(...), db.transaction(nested="{arg}"):',
    "end_beside": "asyncio.create_task(...)  # {arg} of the session's transaction",
    "driver_insert": "await driver.execute('INSERT')",
    "driver_copy": "await driver.copy(...)",
    "driver_error": "await driver.execute('SELECT no_such_thing')",
    "driver_rollback": "await driver.execute('ROLLBACK')",
    "driver_commit": "await driver.execute('COMMIT')",
    "driver_rollback_begin": "await driver.execute('ROLLBACK; BEGIN')",
    "driver_commit_begin": "await driver.execute('COMMIT; BEGIN')",
    "round": "message = await websocket.receive()  # {arg}",
}


def _lines(ops: tuple[Op, ...], depth: int = 1) -> list[str]:
    lines = []
    for op in ops:
        indent = "    " * depth
        lines.append(indent + TEXTS[op.name].format(arg=op.arg))
        if op.body or op.name in ("try", "savepoint", "block", "begin"):
            lines += _lines(op.body, depth + 1) or [indent + "    pass"]
        if op.name == "try":
            lines.append(indent + "except Exception:")
            lines += _lines(op.handler, depth + 1) or [indent + "    pass"]
    return lines

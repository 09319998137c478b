"""Random programs: the same for the same seed and number."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from faults.traps import Act, Fault, Place, Side
from soak.program import How, Op, Program

WRITES = {
    "add": 5,
    "add_flush": 8,
    "insert": 8,
    "text": 6,
    "update": 3,
    "delete": 2,
    "delete_orm": 2,
    "driver_insert": 2,
    "driver_copy": 2,
}
OTHERS = {
    "read": 4,
    "try": 8,
    "savepoint": 6,
    "savepoint_by_hand": 2,
    "block": 5,
    "hook": 5,
    "spawn": 2,
    "commit": 2,
    "rollback": 2,
    "close": 1,
    "with_session": 1,
    "begin": 1,
    "rollback_only": 1,
    "commit_anyway": 1,
    "driver_rollback": 0.5,
    "driver_commit": 0.5,
    "driver_rollback_begin": 0.4,
    "driver_commit_begin": 0.4,
    "cursor": 0.7,
    "kill": 0.7,
    "orphan": 1,
    "sleep": 1,
}
FAILURES = {
    "duplicate": 4,
    "bad_statement": 4,
    "driver_error": 2,
    "raise": 4,
    "conflict": 2,
}
SURROUNDINGS = (
    *("retry", "deadline", "cancel", "leave", "fault", "base", "stream", "background"),
    *("plain", "websocket", "run", "outside", "in_except", "handled"),
    *("ahead", "end_beside"),
)
"""What can be left out beside the operations.

"outside": blocks without a request; "in_except": answers from inside such a block;
"handled": exceptions that a handler makes into a success; "ahead": streams inside a
BaseHTTPMiddleware, which runs them ahead of the start of the response.
"""
NESTING = ("savepoint", "savepoint_by_hand", "try", "block", "with_session", "begin")
TEXTS = (
    "INSERT INTO soak_row (key) VALUES (:key)",
    "insert /* odd */ into soak_row (key) values (:key)",
    "WITH new (k) AS (VALUES (:key)) INSERT INTO soak_row (key) SELECT k FROM new",
)
RAISED = (
    *("LookupError", "http409", "http404", "200", "409", "stream200", "stream409"),
    "http503",
)
PLACES: dict[Place, int] = {"bytes": 4, "BEGIN": 1, "statement": 2, "COMMIT": 5}
PLACES["ROLLBACK"] = 1
ACTS: dict[Act, int] = {"cut": 4, "reset": 3, "hold": 1, "kill": 3}


@dataclass(frozen=True)
class Generator:
    """Draws the programs of *seed* for *driver*; *left_out*: kinds that never come."""

    seed: int
    driver: str
    left_out: frozenset[str] = frozenset()

    def program(self, number: int) -> Program:
        draw = _Draw(random.Random(f"{self.seed} {number}"), self)
        return draw.program(number)


def left_out(
    driver: str, only: Collection[str], without: Collection[str]
) -> frozenset[str]:
    """The kinds to leave out; *only* keeps what it names, and plain writes."""
    out = set(without)
    if only:
        kept = {"add_flush", "insert", "try", "raise", *only}
        out |= {*WRITES, *OTHERS, *FAILURES, *SURROUNDINGS} - kept
    if "sqlite" in driver:
        out |= {"driver_copy", "kill", "conflict", "orphan", "fault", "retry", "run"}
        out |= {"driver_rollback_begin", "driver_commit_begin"}
    if driver in ("psycopg", "sqlite3"):
        out |= {"spawn", "plain", "websocket", "end_beside"}
    return frozenset(out)


class _Draw:
    def __init__(self, chance: random.Random, generator: Generator) -> None:
        self._chance = chance
        self._generator = generator
        self._left_out = generator.left_out
        self._has_spawned = False
        self._in_stream = False
        self._in_websocket = False

    def program(self, number: int) -> Program:
        how = self._how()
        if how in ("block", "run"):
            return self._outside(number, how)
        if how == "websocket":
            self._in_websocket = True
            ops = tuple(self._round() for _ in range(self._chance.randrange(1, 4)))
            surroundings = self._surroundings(cancels=True)
            return Program(number, how, ops, **surroundings)
        surroundings = self._surroundings(cancels=True)
        ops = self._ops(self._chance.randrange(1, 6), 2)
        chunks: tuple[tuple[Op, ...], ...] = ()
        ahead = bool(surroundings["base_inside"])
        if self._may("stream", 0.2) and not (ahead and "ahead" in self._left_out):
            chunks = self._chunks(ahead=ahead)
        background = self._ops(1, 1) if self._may("background", 0.15) else None
        ops += () if chunks else self._end_beside()
        option = ""
        if how == "endpoint" and self._may("retry", 0.2):
            option = "retry"
        elif how == "endpoint" and self._may("deadline", 0.03):
            option, ops = "deadline", (*ops, Op("sleep", "0.05"))
        statuses = [200] * 6 + [201, 303, 404, 422]
        if any(each.name == "cursor" for op in ops for each in op.inside()):
            statuses = [200]  # it keeps the transaction of an error open as well
        return Program(
            number,
            how,
            ops,
            status=self._chance.choice(statuses),
            chunks=chunks,
            background=background,
            answers_in_except=how == "plain" and self._may("in_except", 0.4),
            injected=self._chance.random() < 0.4,
            option=option,  # type: ignore[arg-type]
            **surroundings,
        )

    def _chunks(self, *, ahead: bool) -> tuple[tuple[Op, ...], ...]:
        """*ahead*: the body runs ahead of the start, beside the ending of the unit."""
        counts = range(self._chance.randrange(1, 4))
        if ahead:
            simple = (Op("insert"), Op("add_flush"), Op("read"))
            return tuple((self._chance.choice(simple),) for _ in counts)
        self._in_stream = True
        chunks = tuple(self._ops(self._chance.randrange(3), 1) for _ in counts)
        self._in_stream = False
        return chunks

    def _end_beside(self) -> tuple[Op, ...]:
        """Last: what is done beside it may be a part of either transaction."""
        if not self._may("end_beside", 0.06) or self._has_spawned:
            return ()
        return (Op("end_beside", self._chance.choice(["commit", "rollback", "undo"])),)

    def _how(self) -> How:
        chance = self._chance.random()
        if chance < 0.08 and "plain" not in self._left_out:
            return "plain"
        if 0.1 < chance < 0.2 and "websocket" not in self._left_out:
            return "websocket"
        if 0.2 < chance < 0.26 and "run" not in self._left_out:
            return "run"
        if 0.3 < chance < 0.38 and "outside" not in self._left_out:
            return "block"
        return "endpoint"

    def _outside(self, number: int, how: How) -> Program:
        is_async = self._generator.driver not in ("psycopg", "sqlite3")
        ops = self._ops(3, 2)
        return Program(
            number,
            how,
            ops + self._end_beside(),
            **self._surroundings(cancels=is_async),
        )

    def _round(self) -> Op:
        arg = "in except" if self._may("in_except", 0.3) else ""
        after = self._ops(1, 1) if self._chance.random() < 0.2 else ()
        body = self._ops(self._chance.randrange(1, 4), 2)
        return Op("round", arg, body, after if arg else ())

    def _surroundings(self, *, cancels: bool) -> dict[str, object]:
        chance = self._chance
        base = "base" not in self._left_out
        found: dict[str, object] = {
            "spec_version": chance.choice(["2.3", "2.4"]),
            "base_inside": base and chance.random() < 0.15,
            "base_outside": base and chance.random() < 0.15,
        }
        if self._may("cancel", 0.06) and cancels:
            found["cancel_at"] = 1 + int(chance.random() ** 2 * 60)
        elif self._may("leave", 0.05):
            found["leave_at"] = 1 + int(chance.random() ** 2 * 40)
        if self._may("fault", 0.06):
            found["fault"] = self._fault()
        return found

    def _fault(self) -> Fault:
        chance = self._chance
        [place] = chance.choices(list(PLACES), list(PLACES.values()))
        [act] = chance.choices(list(ACTS), list(ACTS.values()))
        side: Side = chance.choice(["request", "reply"])
        if act == "kill":
            return Fault(
                place, "request", act, chance.randrange(6), chance.choice([None, 0.001])
            )
        number = int(2 ** chance.uniform(0, 11)) if place == "bytes" else 0
        if place == "statement":
            number = chance.randrange(6)
        seconds = 2.0 * chance.random() ** 2 if act == "hold" else None
        return Fault(place, side, act, number, seconds, chance.randrange(40))

    # Operations

    def _may(self, name: str, probability: float) -> bool:
        drawn = self._chance.random() < probability
        return drawn and name not in self._left_out

    def _ops(self, count: int, depth: int) -> tuple[Op, ...]:
        return tuple(self._op(depth) for _ in range(count))

    def _op(self, depth: int) -> Op:
        chance = self._chance.random()
        table = WRITES if chance < 0.5 else OTHERS if chance < 0.9 else FAILURES
        out = set(self._left_out)
        if not depth:
            out |= {*NESTING, "hook", "spawn"}
        if self._has_spawned:
            out |= {*NESTING, "commit", "rollback", "close"}
        if self._in_websocket:
            out |= {"spawn"}
        if self._in_stream:
            out |= {"spawn", "commit_anyway"}
        kinds = {name: weight for name, weight in table.items() if name not in out}
        if not kinds:
            return Op("insert")
        [name] = self._chance.choices(list(kinds), list(kinds.values()))
        return self._fill(name, depth)

    def _fill(self, name: str, depth: int) -> Op:
        chance = self._chance
        if name == "text":
            return Op(name, chance.choice(TEXTS))
        if name == "raise":
            raised = chance.choice(RAISED)
            if "200" in raised and "handled" in self._left_out:
                raised = "409"
            return Op(name, raised)
        if name == "conflict":
            return Op(name, chance.choice("1129"))
        if name == "sleep":
            return Op(name, chance.choice(["0", "0", "0.001"]))
        if name == "spawn":
            self._has_spawned = True
            nested = chance.choice(["own", "join", "savepoint"])
            body = (Op("insert"), Op("sleep", "0.001"), Op("add_flush"))
            return Op(name, nested + chance.choice(["", " outlives"]), body)
        if name == "hook":
            return self._hook(depth)
        if name == "try":
            body = self._body(depth)
            if chance.random() < 0.8:  # else there is nothing to catch
                body += (self._failure(),)
            return Op(name, "", body, self._body(depth)[:1])
        if name in NESTING:
            arg = ""
            if name == "block":
                arg = chance.choice(["own", "own", "join", "savepoint"])
            if name == "savepoint_by_hand":
                arg = chance.choice(["commit", "rollback"])
            body = self._body(depth)
            return Op(name, arg, body)
        return Op(name)

    def _body(self, depth: int) -> tuple[Op, ...]:
        return self._ops(self._chance.randrange(1, 3), depth - 1)

    def _failure(self) -> Op:
        kinds = {k: w for k, w in FAILURES.items() if k not in self._left_out}
        [name] = self._chance.choices(list(kinds), list(kinds.values()))
        return self._fill(name, 0)

    def _hook(self, depth: int) -> Op:
        chance = self._chance
        kind = chance.choice(["before_commit", "on_commit", "on_commit", "on_rollback"])
        body = self._ops(chance.randrange(2), 0)
        if kind != "before_commit":
            body = tuple(op for op in body if op.name != "conflict")
        return Op("hook", kind + chance.choice([""] * 4 + [" fails"]), body)

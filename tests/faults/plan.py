"""Which request meets which fault: drawn by a seed, one draw for each request."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faults.tables import ACCOUNTS
from faults.traps import Act, Fault, Place, Side

NORMAL = ["insert"] * 8 + ["transfer"] * 5 + ["read"] * 4 + ["refuse"] * 2 + ["stream"]
WRITING = ["insert", "insert", "transfer", "stream", "insert_slowly"]
ANY = [*WRITING, "read", "refuse"]


@dataclass(frozen=True)
class Case:
    """A request, and what happens to it."""

    number: int
    path: str
    query: str = ""
    kind: str = ""
    """The name of the fault, for the table."""
    fault: Fault | None = None
    connect: Fault | None = None
    """For the next connection that anybody makes."""
    outage: int = 0
    """All connections are cut, and so many of those that follow are turned away."""
    leaves_after: float | None = None
    """The client cancels then, or in a stream disconnects."""

    @property
    def key(self) -> str:
        return f"r{self.number}"

    def __str__(self) -> str:
        what = [self.path + self.query, self.kind or "no fault"]
        for each in (self.fault, self.connect):
            if each is not None:
                what.append(str(each))
        if self.leaves_after is not None:
            what.append(f"left after {self.leaves_after:.4f} s")
        return f"request {self.number}: {', '.join(what)}"


Details = dict[str, Any]
Draw = Callable[[random.Random], Details]


def _act(chance: random.Random) -> Act:
    return chance.choice(["cut", "reset"])


def _at(place: Place, side: Side | None = None) -> Draw:
    def draw(chance: random.Random) -> Details:
        sides: list[Side] = ["request", "reply"] if side is None else [side]
        chosen = chance.choice(sides)
        number, keep = chance.randrange(8), chance.randrange(40)
        return {"fault": Fault(place, chosen, _act(chance), number, keep=keep)}

    return draw


def _bytes(chance: random.Random) -> Details:
    side: Side = chance.choice(["request", "reply"])
    return {
        "fault": Fault("bytes", side, _act(chance), int(2 ** chance.uniform(0, 11)))
    }


def _hold(longest: float) -> Draw:
    def draw(chance: random.Random) -> Details:
        place: Place = chance.choice(["BEGIN", "statement", "COMMIT", "COMMIT"])
        side: Side = chance.choice(["request", "reply"])
        seconds = longest * chance.uniform(0.1, 1)
        # Somebody who waits for an answer to COMMIT shall get it.
        leaves = place != "COMMIT" and chance.random() < 0.7
        return {
            "fault": Fault(place, side, "hold", chance.randrange(6), seconds),
            "leaves_after": seconds * chance.random() if leaves else None,
        }

    return draw


def _hold_rollback(longest: float) -> Draw:
    def draw(chance: random.Random) -> Details:
        side: Side = chance.choice(["request", "reply"])
        seconds = longest * chance.uniform(0.1, 1)
        return {"fault": Fault("ROLLBACK", side, "hold", 0, seconds)}

    return draw


def _kill(chance: random.Random) -> Details:
    place: Place = chance.choice(["BEGIN", "statement", "COMMIT", "bytes"])
    seconds = chance.choice([None, 0.002 * chance.random()])
    number = chance.randrange(500 if place == "bytes" else 6)
    return {"fault": Fault(place, "request", "kill", number, seconds)}


def _kill_in_commit(chance: random.Random) -> Details:
    fault = Fault("COMMIT", "request", "kill", 0, chance.uniform(0.0, 0.03))
    return {"path": "insert_slowly", "fault": fault}


def _connect(chance: random.Random) -> Details:
    side: Side = chance.choice(["request", "reply"])
    act: Act = chance.choice(["cut", "reset", "hold"])
    number = int(2 ** chance.uniform(0, 10))
    return {"connect": Fault("bytes", side, act, number, 0.3 * chance.random())}


def _commit_and_connect(chance: random.Random) -> Details:
    """Those who want to ask what became of COMMIT meet a fault as well."""
    return {**_at("COMMIT")(chance), **_connect(chance)}


def _outage(chance: random.Random) -> Details:
    return {"outage": chance.randrange(1, 9)}


def _leave(chance: random.Random) -> Details:
    return {"leaves_after": 0.03 * chance.random() ** 2}


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how often among the others, to which requests, and the rest."""

    weight: int
    paths: list[str]
    draw: Draw
    only_postgresql: bool = False


KINDS = {
    "byte": Kind(6, ANY, _bytes),
    "BEGIN lost": Kind(2, ANY, _at("BEGIN"), only_postgresql=True),
    "statement lost": Kind(3, ANY, _at("statement")),
    "COMMIT request lost": Kind(5, WRITING, _at("COMMIT", "request")),
    "COMMIT reply lost": Kind(5, WRITING, _at("COMMIT", "reply")),
    "ROLLBACK lost": Kind(2, ["refuse"], _at("ROLLBACK")),
    "black hole": Kind(4, WRITING, _hold(1.5)),
    "black hole at ROLLBACK": Kind(1, ["refuse"], _hold_rollback(1.5)),
    "delay": Kind(2, ANY, _hold(0.1)),
    "backend killed": Kind(4, ANY, _kill),
    "killed in COMMIT": Kind(3, WRITING, _kill_in_commit, only_postgresql=True),
    "connect": Kind(2, ANY, _connect),
    "COMMIT and connect": Kind(2, WRITING, _commit_and_connect),
    "outage": Kind(1, ANY, _outage),
    "client gone": Kind(6, ANY, _leave),
}


@dataclass(frozen=True)
class Plan:
    """What a seed stands for. *rate*: how many of the requests meet a fault."""

    seed: int
    requests: int
    rate: float
    kinds: tuple[str, ...] = tuple(KINDS)

    def case(self, number: int) -> Case:
        """The same for the same seed, whatever came before."""
        chance = random.Random(f"{self.seed} {number}")
        drawn: Details = {"kind": "", "path": chance.choice(NORMAL)}
        if chance.random() < self.rate:
            weights = [KINDS[kind].weight for kind in self.kinds]
            [kind] = chance.choices(self.kinds, weights)
            drawn = {"kind": kind, "path": chance.choice(KINDS[kind].paths)}
            drawn |= KINDS[kind].draw(chance)
        if drawn["path"] == "transfer":
            source, target = chance.sample(range(1, ACCOUNTS + 1), 2)
            amount = chance.randrange(1, 50)
            drawn["query"] = f"?source={source}&target={target}&amount={amount}"
        return Case(number, **drawn)


def for_backend(backend: str) -> tuple[str, ...]:
    """The kinds of fault that the server knows."""
    return tuple(
        name
        for name, kind in KINDS.items()
        if backend == "postgresql" or not kind.only_postgresql
    )

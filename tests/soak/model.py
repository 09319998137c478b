"""What may be stored: the books of a program, kept while it runs.

A unit's rows are *open* until someone learns about them: the client by an answer, the
program by what `session.commit()` or a block returns or raises. From then on they are
in a `Claim`. When all is over the claims are compared with the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from unitwork import CommitUnknownError


class Fate(Enum):
    """What the database must have made of some rows."""

    STORED = "all stored"
    ABSENT = "none stored"
    TOGETHER = "all or none stored"
    """The outcome is unknown, or no one waits for it any more."""
    ANY = "any stored"
    """A statement without an answer, in a transaction that was committed."""


def fate_after(error: BaseException) -> Fate:
    """What *error*, raised in place of a success, says about the work."""
    known = isinstance(error, Exception) and not isinstance(error, CommitUnknownError)
    return Fate.ABSENT if known else Fate.TOGETHER


@dataclass(eq=False)
class Hook:
    """One registered hook, or a background task, which must follow a commit as well."""

    kind: str
    calls: int = 0


@dataclass
class Claim:
    rows: list[str]
    fate: Fate
    because: str
    hooks: list[Hook] = field(default_factory=list)
    may_lose_hooks: bool = False
    """Whether a cancellation or a deadline may have kept hooks from being called."""

    def violations(self, table: Counter[str]) -> Iterator[str]:
        """Yield what is wrong, each with its kind first."""
        found = [row for row in self.rows if table[row]]
        missing = [row for row in self.rows if not table[row]]
        if self.fate is Fate.STORED and missing:
            yield f"lie: {self.because}, and {missing} not stored"
        if self.fate is Fate.ABSENT and found:
            yield f"ghost: {self.because}, and {found} stored"
        if self.fate is Fate.TOGETHER and found and missing:
            yield f"half: {self.because}, {found} stored, {missing} not"
        stored = self.fate is Fate.STORED
        if self.fate is Fate.TOGETHER and self.rows:
            stored = bool(found)
        for hook in self.hooks:
            yield from self._hook_violations(hook, stored)

    def _hook_violations(self, hook: Hook, stored: bool) -> Iterator[str]:
        what = f"hook: {hook.kind} called {hook.calls} times: {self.because}"
        unclear = self.fate is Fate.ANY or (
            self.fate is not Fate.ABSENT and not self.rows
        )
        if hook.calls > 1:
            yield what
        elif unclear:
            return
        elif hook.calls and stored is (hook.kind == "on_rollback"):
            yield f"{what}, {'stored' if stored else 'not stored'}"
        elif hook.kind == "on_commit" and not hook.calls and not self.may_lose_hooks:
            yield from [what] * (self.fate is Fate.STORED)


@dataclass(eq=False)
class Scope:
    """A transaction, or a savepoint in one."""

    rows: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    """Rows of statements that have not returned: in flight, or failed."""
    deleted: list[str] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)

    def take(self, other: Scope) -> None:
        self.rows += other.rows
        self.unanswered += other.unanswered
        self.deleted += other.deleted
        self.hooks += other.hooks


class Unit:
    """The books of one unit of work."""

    def __init__(self, books: Books, *, by_hook: bool = False) -> None:
        self._books = books
        self._scopes = [Scope()]
        self._in_doubt: list[Scope] = []
        """Committed in doubt, or through the driver."""
        self.by_hook = by_hook
        self.epoch = 0
        self.rollback_only = False
        self.commit_anyway = False
        self.must_fail = ""
        """Why success may not be reported, whatever is stored."""
        self.has_failed_beside = False
        """Whether a task has left a block that has joined it by an error: that may have
        lost the work, and an answer that is an error anyway does not say so."""
        self.is_loose = False
        """Whether the driver has ended the transaction: then each row is on its own."""
        self.has_cursor = False
        """Whether its session has one that was left open."""
        self.body: Unit | None = None
        """What a response body does beside it, in the same transaction."""
        self.may_be_undone = False
        """Whether a rollback by hand, beside it, may have undone what is open."""

    # What the program does

    @property
    def scope(self) -> Scope:
        return self._scopes[-1]

    @property
    def open_rows(self) -> list[str]:
        deleted = {row for scope in self._scopes for row in scope.deleted}
        return [r for scope in self._scopes for r in scope.rows if r not in deleted]

    def writes(self) -> tuple[Scope, str]:
        """A statement is about to write the row whose key is returned."""
        key = self._books.new_key()
        self.scope.unanswered.append(key)
        return self.scope, key

    def wrote(self, scope: Scope, key: str) -> None:
        """The statement has returned."""
        if scope in self._scopes:
            scope.unanswered.remove(key)
            scope.rows.append(key)

    def deleted(self, key: str) -> None:
        self.scope.deleted.append(key)

    def registered(self, kind: str) -> Hook:
        hook = Hook(kind)
        self.scope.hooks.append(hook)
        return hook

    def savepoint(self) -> Scope:
        self._scopes.append(Scope())
        return self.scope

    def released(self, scope: Scope) -> None:
        if scope in self._scopes:
            for inner in self._cut(scope):
                self.scope.take(inner)

    def undone(self, scope: Scope) -> None:
        """The savepoint was rolled back, and all that was inside."""
        if scope in self._in_doubt:  # the driver has ended it; its end has raised
            self._in_doubt.remove(scope)
            self._claim(scope, Fate.ANY, "a savepoint that the driver had ended")
        if scope in self._scopes:
            for inner in self._cut(scope):
                # A task beside it may have written these after the savepoint.
                self.scope.unanswered += inner.unanswered
                inner.unanswered = []
                self._claim(inner, Fate.ABSENT, "a savepoint was rolled back")

    def _cut(self, scope: Scope) -> list[Scope]:
        at = self._scopes.index(scope)
        inner, self._scopes[at:] = self._scopes[at:], []
        return inner

    # Its outcome

    def rolled_back(self) -> None:
        """By hand: the program knows."""
        if self.body is not None:
            self.body.may_be_undone = True
        for scope in self._new_transaction():
            hooks, scope.hooks = scope.hooks, []
            self._claim(scope, Fate.ABSENT, "session.rollback()")
            self._books.claim([], Fate.ANY, "session.rollback()", hooks)
        for scope in self._in_doubt:
            self._claim(scope, Fate.TOGETHER, "a commit in doubt, then rollback()")
        self._in_doubt = []
        self.must_fail = ""

    def committed(self, because: str) -> None:
        """By hand; the hooks of an empty transaction may wait for more."""
        self.settle(Fate.STORED if self.open_rows else Fate.ANY, because)

    def undone_beside(self) -> None:
        """By the session's rollback, in a task that may fail."""
        whole = Scope()
        for scope in self._new_transaction():
            whole.take(scope)
        whole.hooks = [hook for hook in whole.hooks if hook.kind != "background"]
        self._claim(whole, Fate.TOGETHER, "a rollback beside it")

    def committed_in_doubt(self) -> None:
        """A commit that may have worked: success may only be reported if it has."""
        self._in_doubt += self._new_transaction()

    def settle(self, fate: Fate, because: str) -> None:
        """All open rows have this *fate*."""
        self.epoch += 1
        if fate is Fate.STORED and self.must_fail and self.open_rows:
            self._books.wrong(f"lie: {because}, although {self.must_fail}")
        whole = Scope()
        for scope in self._new_transaction():
            whole.take(scope)
        self._claim(whole, fate, because)
        for scope in self._in_doubt:
            is_stored = fate is Fate.STORED
            self._claim(scope, fate if is_stored else Fate.TOGETHER, because)
        self._in_doubt = []

    def start_afresh(self) -> None:
        """Before the next message of a WebSocket."""
        self.rollback_only = self.commit_anyway = self.is_loose = False
        self.must_fail = ""

    def succeed(self, because: str) -> None:
        """Success was reported, of all that is open."""
        if not self.rollback_only:
            self.settle(Fate.STORED, because)
            return
        for scope in self._scopes:  # the answer stands, and so does what follows it
            scope.hooks = [hook for hook in scope.hooks if hook.kind != "background"]
        self.settle(Fate.ABSENT, f"{because}, after rollback_only()")

    def _new_transaction(self) -> list[Scope]:
        scopes, self._scopes = self._scopes, [Scope()]
        self.has_cursor = False
        return scopes

    def _claim(self, scope: Scope, fate: Fate, because: str) -> None:
        if self.is_loose and (fate is not Fate.STORED or self.may_be_undone):
            fate = Fate.ANY
        kept = [row for row in scope.rows if row not in scope.deleted]
        self._books.claim(kept, fate, because, scope.hooks)
        deleted = [row for row in scope.rows if row in scope.deleted]
        self._books.claim(deleted, Fate.ABSENT, f"deleted; {because}")
        unclear = Fate.ABSENT if fate is Fate.ABSENT else Fate.ANY
        self._books.claim(scope.unanswered, unclear, f"unanswered; {because}")
        if fate is Fate.STORED and kept and not self.by_hook:
            self._books.committed.append(because)


class Books:
    """All that one program has done, and what was said about it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.attempt = 0
        self.claims: list[Claim] = []
        self.committed: list[str] = []
        """What this attempt has committed already: after that there is no other."""
        self.failures: list[str] = []
        """What may be a reason to tell of a failure."""
        self.interrupted = False
        self.found: list[str] = []
        self._keys = 0

    def new_key(self) -> str:
        self._keys += 1
        return f"{self.number}.{self._keys}"

    def new_attempt(self) -> None:
        if self.committed:
            self.wrong(f"double: run again after {self.committed}")
        self.committed = []
        self.attempt += 1

    def claim(
        self, rows: list[str], fate: Fate, because: str, hooks: list[Hook] | None = None
    ) -> None:
        if rows or hooks:
            self.claims.append(
                Claim(list(rows), fate, because, hooks or [], self.interrupted)
            )

    def wrong(self, what: str) -> None:
        self.found.append(what)

    def failed(self, why: object) -> None:
        """From now on a failure may be reported."""
        self.failures.append(f"{why!r:.200}")

    def violations(self, table: Counter[str]) -> list[str]:
        """All that is wrong, now that nothing moves any more."""
        wrong = list(self.found)
        for claim in self.claims:
            claim.may_lose_hooks |= self.interrupted
            wrong += claim.violations(table)
        keys = (f"{self.number}.{n}" for n in range(1, self._keys + 1))
        wrong += [f"double: {key} is stored twice" for key in keys if table[key] > 1]
        return wrong

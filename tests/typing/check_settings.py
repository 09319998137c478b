"""What mypy and pyright know of settings, verifiers and faults; never run."""

from typing import assert_type

from sqlalchemy import Connection

from unitwork import (
    AsyncDatabase,
    CommitVerifier,
    Database,
    DatabaseSettings,
    LogPositionVerifier,
)
from unitwork.testing import CommitFault, check_idle, commit_faults


class Receipts:
    def before_commit(self, connection: Connection) -> str:
        return "mark"

    def committed(self, connection: Connection, mark: str) -> bool | None:
        return None


class Half:
    def before_commit(self, connection: Connection) -> None: ...


verifier: CommitVerifier = Receipts()
settings = DatabaseSettings(verify_commit=verifier, commit_timeout=None)
assert_type(settings.verify_commit, bool | CommitVerifier)
assert_type(settings.commit_timeout, float | None)
assert_type(settings.verify_timeout, float)
DatabaseSettings(verify_commit=LogPositionVerifier(), transaction_pooler=True)
DatabaseSettings(verify_commit=Half())  # type: ignore[arg-type]
settings.verify_timeout = 1.0  # type: ignore[misc]

with commit_faults(Database("sqlite://"), None, CommitFault.COMMITTED) as nothing:
    assert_type(nothing, None)
commit_faults(AsyncDatabase("sqlite+aiosqlite://"), ValueError())
commit_faults(Database("sqlite://"), True)  # type: ignore[arg-type]
check_idle(Database("sqlite://"), AsyncDatabase("sqlite+aiosqlite://"))
check_idle("sqlite://")  # type: ignore[arg-type]

"""What mypy and pyright know of options, retries and deadlines; never run."""

from collections.abc import Mapping
from typing import Any, assert_type

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from unitwork import (
    AsyncDatabase,
    CommitUnknownError,
    Database,
    DBSessionMiddleware,
    DeadlineExceededError,
    Defaults,
    Kind,
    ReadOnlyError,
    Retry,
    RetryPolicy,
    TransactionOptions,
    UnitOfWork,
    UsageError,
    succeeded,
    transactional,
)
from unitwork.fastapi import (
    answer_read_only,
    answer_stale_data,
    answer_timeout,
    answer_unknown,
    transaction_options,
)
from unitwork.testing import no_waits

db = Database("sqlite://")
async_db = AsyncDatabase("sqlite+aiosqlite://")

# Options

options = TransactionOptions(isolation_level="SERIALIZABLE", attempts=3, deadline=2)
assert_type(options | TransactionOptions(read_only=True), TransactionOptions)
assert_type(options.timeout, float | None)
assert_type(options.attempts, int | None)
TransactionOptions("SERIALIZABLE")  # type: ignore[call-arg]
TransactionOptions(retries=3)  # type: ignore[call-arg]
options.attempts = 5  # type: ignore[misc]


@transactional(isolation_level="SERIALIZABLE", lock_timeout=0.5, commit_when=succeeded)
async def endpoint(item: int) -> str:
    return str(item)


@transactional(stream=True)
class Endpoint:
    pass


assert_type(Endpoint(), Endpoint)
transactional(isolation="SERIALIZABLE")  # type: ignore[call-arg]
transactional(timeout="1 s")  # type: ignore[arg-type]


async def called() -> None:
    assert_type(await endpoint(1), str)


Depends(transaction_options(read_only=True, timeout=1.5))
transaction_options(readonly=True)  # type: ignore[call-arg]


def by_request(scope: Mapping[str, Any]) -> TransactionOptions | None:
    return None


defaults: Defaults = by_request
defaults = {"GET": TransactionOptions(read_only=True)}
defaults = 3  # type: ignore[assignment]
FastAPI().add_middleware(DBSessionMiddleware, db=db, options=by_request)
FastAPI().add_middleware(DBSessionMiddleware, db=db, retry=RetryPolicy(body_limit=0))

with db.transaction(read_only=True, nested="own") as session:
    assert_type(session, Session)
db.transaction(attempts=3)  # type: ignore[call-arg]

# Retries


def note(retry: Retry) -> None:
    assert_type(retry.attempt, int)
    assert_type(retry.attempts, int)
    assert_type(retry.wait, float)
    assert_type(retry.error, BaseException)
    assert_type(retry.path, str)


policy = RetryPolicy(
    first_wait=0.01,
    longest_wait=1,
    give_up_after=5,
    stale_data=True,
    rules=[lambda found: Kind.RETRY if found.code == "55P03" else None],
    before_retry=note,
)
assert_type(policy.body_limit, int)
assert_type(policy.stale_data, bool)
policy.first_wait = 1.0  # type: ignore[misc]


def move(session: Session, amount: int) -> str:
    return "done"


async def amove(session: AsyncSession, amount: int) -> str:
    return "done"


async def runs() -> None:
    assert_type(db.run(move, 3, attempts=5, retry=policy), str)
    assert_type(await async_db.run(amove, 3, isolation_level="SERIALIZABLE"), str)
    db.run(move, "three")  # type: ignore[arg-type]
    db.run(move)  # type: ignore[arg-type]
    await async_db.run(move, 3)  # type: ignore[arg-type]


def knows(unit: UnitOfWork) -> None:
    assert_type(unit.attempt, int)
    assert_type(unit.is_last_attempt, bool)
    unit.side_effect_done("the card is charged")


with no_waits() as nothing:
    assert_type(nothing, None)

# Errors

found: UsageError = ReadOnlyError()
late: TimeoutError = DeadlineExceededError()
handlers = {
    ReadOnlyError: answer_read_only,
    DeadlineExceededError: answer_timeout,
    CommitUnknownError: answer_unknown,
    StaleDataError: answer_stale_data,
}

transactional(release="statement")
TransactionOptions(release="transaction")
transactional(release="each")  # type: ignore[arg-type]

"""A session that knows its unit, alone: the fence, and what a plan does with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import StaticPool

from support.models import Base, Item
from unitwork import DatabaseSettings, SessionEndedError, UnexpectedRollbackError
from unitwork._engine import pool_events
from unitwork._engine.begin import TransactionCharacteristics
from unitwork._session import operations
from unitwork._session.fence import fenced
from unitwork._session.opening import Opening
from unitwork._session.state import CommitState
from unitwork._session.unit_session import UnitSession


@dataclass
class Owner:
    """Notes what its session reports."""

    reports: list[str] = field(default_factory=list)
    may_commit: bool = True
    is_inside_a_retry: bool = False
    report: None = None
    withdraws_commit: bool = False

    def characteristics(
        self, session: UnitSession
    ) -> TransactionCharacteristics | None:
        return None

    def identifies_transactions(self, session: UnitSession) -> bool:
        return True

    def settle_commit(self, session: UnitSession) -> bool | None:
        return None

    def commit_unclear(self, error: Exception) -> None:
        self.reports.append("unclear")

    @property
    def two_phase(self) -> Owner:
        return self

    def check(self, session: UnitSession, bind: Engine | Connection) -> None:
        pass

    def begin(self, session: UnitSession, connection: Connection) -> None:
        self.reports.append("begun")

    def begin_commit(self) -> bool:
        return self.may_commit

    def check_commit(self) -> None:
        pass

    def user_committed(self, session: UnitSession) -> None:
        self.reports.append("committed by the user")

    def user_commit_failed(self) -> None:
        self.reports.append("went on after a commit that failed")

    def savepoint_begun(self, savepoint: SessionTransaction) -> None:
        pass

    def savepoint_ended(self, savepoint: SessionTransaction) -> None:
        pass

    def rolled_back(self, transaction: SessionTransaction) -> None:
        self.reports.append("savepoint" if transaction.nested else "rolled back")

    def lose(self, error: BaseException) -> None:
        self.reports.append(str(error))

    def describe_end(self) -> str:
        return "committed: status 200"


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    pool_events.guard(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def unit_session(engine: Engine, owner: Owner) -> Iterator[UnitSession]:
    session = fenced(Session)(engine, close_resets_only=False, expire_on_commit=False)
    settings = DatabaseSettings(hold_warning=None)  # its owner has no description
    yield UnitSession(session, owner, "a", Opening(settings))
    session.close()


@pytest.fixture
def session(unit_session: UnitSession) -> Session:
    return unit_session.sync_session


USES = {
    "add": lambda session: session.add(Item(name="x")),
    "execute": lambda session: session.execute(text("SELECT 1")),
    "begin": lambda session: session.begin(),
    "flush": lambda session: session.flush(),
    "refresh": lambda session: session.refresh(Item(name="x")),
    "connection": lambda session: session.connection(),
}


# The fence


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("end", [UnitSession.refuse, UnitSession.close])
def test_refuses_all_work_after_the_end(
    unit_session: UnitSession, session: Session, end: object, use: object
) -> None:
    end(unit_session)  # type: ignore[operator]  # a method

    with pytest.raises(SessionEndedError) as caught:
        use(session)  # type: ignore[operator]  # of the session

    assert "has ended (committed: status 200)" in str(caught.value)
    assert "`with db.transaction() as session:`" in str(caught.value)


def test_refuses_in_the_middle_of_a_transaction(
    unit_session: UnitSession, session: Session
) -> None:
    session.execute(text("SELECT 1"))
    unit_session.refuse()

    with pytest.raises(SessionEndedError):
        session.execute(text("SELECT 1"))
    assert unit_session.in_transaction


def test_works_again_once_it_is_reopened(
    unit_session: UnitSession, session: Session
) -> None:
    unit_session.refuse()
    unit_session.reopen()

    assert session.scalar(text("SELECT 1")) == 1


def test_stays_closed(unit_session: UnitSession, session: Session) -> None:
    unit_session.close()
    unit_session.reopen()

    with pytest.raises(SessionEndedError):
        session.execute(text("SELECT 1"))


def test_reports_a_commit_and_a_rollback_of_the_application(
    session: Session, owner: Owner
) -> None:
    session.execute(text("SELECT 1"))
    session.commit()
    session.execute(text("SELECT 1"))
    session.rollback()

    assert owner.reports == ["begun", "committed by the user", "begun", "rolled back"]


def test_reports_a_savepoint_that_is_rolled_back(
    session: Session, owner: Owner
) -> None:
    with session.begin_nested() as savepoint:
        session.execute(text("SELECT 1"))
        savepoint.rollback()

    assert owner.reports == ["begun", "savepoint"]


def test_reports_that_the_application_goes_on_after_a_commit_that_failed(
    unit_session: UnitSession,
    session: Session,
    owner: Owner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session.execute(text("SELECT 1"))
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_commit_impl", fail)
        with pytest.raises(LookupError):
            session.commit()
    assert unit_session.commit_state is CommitState.SENT_BY_APPLICATION
    session.rollback()

    session.execute(text("SELECT 1"))

    assert owner.reports[-2:] == ["went on after a commit that failed", "begun"]
    assert unit_session.commit_state is CommitState.NOT_SENT


def fail(*args: object) -> None:
    raise LookupError


# Operations


def test_a_commit_of_the_unit_is_not_reported(
    unit_session: UnitSession, session: Session, owner: Owner
) -> None:
    session.add(Item(name="x"))

    assert operations.commit(session)
    unit_session.reopen()

    assert owner.reports == ["begun"]
    assert session.scalars(select(Item.name)).all() == ["x"]


def test_no_commit_is_sent_if_the_owner_forbids_it(
    unit_session: UnitSession, session: Session, owner: Owner
) -> None:
    owner.may_commit = False
    session.add(Item(name="x"))

    assert not operations.commit(session)

    assert unit_session.in_transaction
    assert unit_session.commit_state is CommitState.NOT_SENT
    operations.rollback(session)
    assert session.scalars(select(Item.name)).all() == []


def test_work_that_is_lost_is_not_committed(session: Session) -> None:
    session.add(Item(id=1, name="x"))
    session.flush()
    session.connection().invalidate()

    with pytest.raises(UnexpectedRollbackError):
        operations.commit(session)
    operations.rollback(session)


def test_a_rollback_that_fails_throws_the_connection_away(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = session.connection()
    monkeypatch.setattr(Connection, "_rollback_impl", fail)

    operations.rollback(session)

    assert connection.closed
    assert not session.in_transaction()


def test_a_commit_that_turns_out_to_be_done_keeps_the_objects_usable(
    unit_session: UnitSession,
    session: Session,
    owner: Owner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    item = Item(name="x")
    session.add(item)
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_commit_impl", fail)
        with pytest.raises(LookupError):
            operations.commit(session)
    assert unit_session.commit_state is CommitState.SENT_BY_UNIT

    operations.accept_commit(session)

    assert (item.id, item.name) == (1, "x")
    assert owner.reports == ["begun"]
    assert not unit_session.in_transaction
    assert unit_session.commit_state is CommitState.NOT_SENT


def test_operations_do_with_a_session_that_belongs_to_no_unit(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Item(name="x"))
        assert operations.commit(session)
        operations.check_not_lost(session)
        operations.accept_commit(session)
        operations.rollback(session)
        assert session.scalars(select(Item.name)).all() == ["x"]


def test_a_session_that_was_closed_for_good_can_not_be_used_without_its_unit(
    unit_session: UnitSession, session: Session
) -> None:
    unit_session.close()
    session.unitwork_session = None  # type: ignore[attr-defined]  # as of a test's own

    with pytest.raises(InvalidRequestError, match="closed"):
        session.execute(text("SELECT 1"))


def test_begins_by_itself_and_names_what_to_write_instead(session: Session) -> None:
    session.execute(text("SELECT 1"))

    with pytest.raises(InvalidRequestError, match="already begun") as caught:
        session.begin()

    (note,) = caught.value.__notes__
    assert "`session.begin_nested()`" in note
    assert 'nested="join"' in note


def test_is_left_open_by_close_and_reset_until_its_unit_ends(
    unit_session: UnitSession, session: Session
) -> None:
    session.add(Item(name="x"))
    session.close()
    session.reset()

    assert (unit_session.in_transaction, len(session.new)) == (True, 1)
    operations.rollback(session)
    unit_session.close()
    session.close()

"""What spares most units a call does the same as what it stands for."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from unitwork import DatabaseSettings, TransactionOptions, transactional
from unitwork._asgi.connection import Connection
from unitwork._asgi.route_options import MiddlewareConfig, merge_options
from unitwork._engine.begin import BindCache, TransactionCharacteristics
from unitwork._session.fence import fenced
from unitwork._session.opening import Opening
from unitwork._session.state import CommitState
from unitwork._session.unit_session import UnitSession
from unitwork.options import NO_OPTIONS
from unitwork.outcome import succeeded
from unitwork.retry import RetryPolicy

ENGINE = create_engine("postgresql+psycopg://")
READS = TransactionOptions(read_only=True)


def known(thing: Any) -> dict[str, Any]:
    slots = [name for each in type(thing).__mro__[:-1] for name in each.__slots__]
    return {name: getattr(thing, name) for name in slots}


def new_session(*, owned: bool = True) -> Any:
    return UnitSession(
        fenced(Session)(ENGINE),
        owner=None,  # type: ignore[arg-type]  # nothing is reported to it
        name="a",
        opening=Opening(DatabaseSettings()),
        owned=owned,
    )


def test_a_new_session_has_nothing_to_reset_when_it_begins() -> None:
    session = new_session()
    before = known(session), known(session.ends), known(session.activity)

    session.begin()

    assert (known(session), known(session.ends), known(session.activity)) == before


def test_one_that_a_test_has_given_may_have_begun_before() -> None:
    session = new_session(owned=False)
    session.commit_state = CommitState.SENT_BY_UNIT

    session.sync_session.begin()

    assert session.commit_state is CommitState.NOT_SENT


def test_an_engine_that_needs_no_look_up_is_found_as_it_is() -> None:
    binds = BindCache([ENGINE])

    assert binds.unchanged == {ENGINE}
    assert binds.find(ENGINE, None) == (ENGINE, None)
    assert ENGINE is not binds.find(ENGINE, TransactionCharacteristics("SERIALIZABLE"))


def test_a_database_with_defaults_has_no_such_engine() -> None:
    assert BindCache([create_engine("sqlite://")]).unchanged == set()


@transactional(isolation_level="SERIALIZABLE")
async def marked() -> None:
    pass


class ClassBased:
    @transactional(read_only=True)
    async def get(self) -> None:
        pass


@pytest.mark.parametrize("own", [NO_OPTIONS, READS])
@pytest.mark.parametrize("defaults", [None, lambda scope: READS])
@pytest.mark.parametrize("endpoint", [None, marked, ClassBased, object()])
def test_the_options_of_a_request_are_merged_in_one_way(
    own: TransactionOptions, defaults: Any, endpoint: object
) -> None:
    config = MiddlewareConfig(succeeded, defaults, RetryPolicy())
    scope = {"type": "http", "method": "GET", "endpoint": endpoint}

    found = Connection(scope, config, {}, None).find_options(own)

    assert found == merge_options(scope, config, own)

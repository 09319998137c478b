"""What a session knows of its transaction, by its connections."""

from __future__ import annotations

from typing import Any

from unitwork._session.transaction_evidence import TransactionEvidence


class Evidence(TransactionEvidence):
    """That of a session whose BEGIN has lost the connection: it has no loan yet."""

    connections: list[Any] = [object()]  # noqa: RUF012  # of this one object
    loans: list[Any] = []  # noqa: RUF012


def test_a_connection_that_was_lost_at_begin_has_stored_nothing() -> None:
    assert not Evidence().may_be_stored

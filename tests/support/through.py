"""Whether databases of the tests are reached through PgBouncer: `make promises-pooled`.

What looks from outside goes to the server itself, all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import make_url

from unitwork import DatabaseSettings

if TYPE_CHECKING:
    import pytest

ON = os.environ.get("UNITWORK_TEST_THROUGH") == "pgbouncer"
POOLED = {"UNITWORK_TEST_THROUGH": "pgbouncer", "UNITWORK_TEST_PGBOUNCER_POOL": "20"}
"""What the environment says for that; the second is for tools/pgbouncer.py."""

_AUTOCOMMIT = "asyncpg can't use AUTOCOMMIT behind a pooler, and UsageError says so"
_SETTING = "a listener sets session-level state, which a pooler does not keep"
LEFT_OUT = {
    "test_what_is_committed_at_once_is_not_rolled_back[asyncpg]": _AUTOCOMMIT,
    "test_a_unit_that_has_only_read_is[asyncpg]": _AUTOCOMMIT,
    "test_what_a_lost_connection_has_stored_is_not_rolled_back[asyncpg]": (_AUTOCOMMIT),
    "test_a_statement_that_the_database_refuses_has_stored_nothing[asyncpg]": (
        _AUTOCOMMIT
    ),
    "test_without_a_transaction_an_error_costs_its_own_statement_only[asyncpg]": (
        _AUTOCOMMIT
    ),
    "test_its_replacement_is_prepared_by_what_listens_to_checkouts[": _SETTING,
}
"""How tests begin that can't run through a pooler, and why."""


def leave_out(items: Iterable[pytest.Item]) -> None:
    """Skip what is `LEFT_OUT`, with its reason, if there is a pooler between."""
    import pytest  # the benchmarks do without it

    for item in items:
        for begins, reason in LEFT_OUT.items():
            if ON and item.name.startswith(begins):
                item.add_marker(pytest.mark.skip(reason=reason))


def round_trips(name: str) -> int:
    """How many a statement takes by the driver of the flavour *name*.

    Behind a pooler asyncpg prepares each statement, and executes it.
    """
    return 2 if ON and name == "asyncpg" else 1


def through(url: str) -> str:
    """The address of the pooler in place of the server's, if *url* is the server's."""
    given, server = make_url(url), os.environ.get("UNITWORK_TEST_POSTGRESQL")
    if not ON or server is None or given.port != make_url(server).port:
        return url
    pooler = make_url(os.environ["UNITWORK_TEST_PGBOUNCER"])
    return given.set(host=pooler.host, port=pooler.port).render_as_string(False)


def behind(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """The *options* of a database at *url*, with the setting for the pooler."""
    if not ON or make_url(url).get_backend_name() != "postgresql":
        return options
    settings = options.get("settings") or DatabaseSettings()
    return {**options, "settings": replace(settings, transaction_pooler=True)}

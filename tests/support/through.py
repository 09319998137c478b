"""Whether databases of the tests are reached through PgBouncer: `make promises-pooled`.

What looks from outside goes to the server itself, all the same.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from sqlalchemy import make_url

from unitwork import DatabaseSettings

ON = os.environ.get("UNITWORK_TEST_THROUGH") == "pgbouncer"


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

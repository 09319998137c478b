"""A run of tests that is killed while it uses a database: `python -m ... <url>`."""

from __future__ import annotations

import os
import signal
import sys

from sqlalchemy import create_engine

from support.models import create_tables
from unitwork._real_databases.real_databases import RealDatabases

if __name__ == "__main__":
    databases = RealDatabases(
        create_engine(sys.argv[1]), (create_tables, "tables of the tests")
    )
    lent = databases.take()
    print(lent.url.database, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

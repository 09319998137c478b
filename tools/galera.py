"""A MariaDB Galera cluster of three nodes for one command.

    python tools/galera.py --wsrep-sync-wait=1 -- pytest -x

The command finds the addresses in `UNITWORK_TEST_GALERA`, with a comma between them.
What stands before the `--` goes to the nodes. The server is that of `tools/mariadb.py`;
the provider is `$GALERA_PROVIDER`, else Debian's. Where there is none the command runs
without; in CI that is an error.
"""

import sys

from servers.command import run_beside
from servers.galera import galera

if __name__ == "__main__":
    sys.exit(run_beside(galera, sys.argv))

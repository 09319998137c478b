"""Clients write and read over several processes while replicas fail: is a read stale?

    make stale N=100000                        # pairs of a write and a read
    make stale SECONDS=600 EVERY=10            # with a fault every 10 seconds
    make stale N=2000 FAULTS="" DELAY=50       # replicas that are 50 ms behind

Each pair is one client's: it writes in one process and reads in another, with the
cookie of the response alone. A read is stale if it lacks a write that was acknowledged
to this client. The exit code is 1 if there was one, or if a request has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from servers.postgresql_replication import Replication
from stale.clients import Clients, Counts, Workers
from stale.faults import FAULTS, Faults


async def measure(
    replication: Replication, arguments: argparse.Namespace, folder: Path
) -> Counts:
    """Run the clients, and the faults beside them, until one of the limits."""
    if arguments.delay:
        for i in range(len(replication.replica_urls)):
            replication.set_delay(i, arguments.delay)
    async with Workers(replication, arguments, folder) as workers:
        clients = Clients(workers, arguments.clients, seed=arguments.seed)
        faults = Faults(replication, arguments.faults.split(), seed=arguments.seed)
        progress = asyncio.create_task(_show(clients.counts))
        with faults.every(arguments.every):
            await clients.run(pairs=arguments.pairs, seconds=arguments.seconds)
        progress.cancel()
        clients.counts.faults = faults.count
        return clients.counts


async def _show(counts: Counts) -> None:
    """Say each minute how far a long run is."""
    while True:
        await asyncio.sleep(60)
        print(
            f"{counts.pairs} pairs, {counts.stale} stale, {counts.failed} failed, "
            f"{counts.from_replicas} reads from replicas",
            file=sys.stderr,
            flush=True,
        )


def main(*given: str) -> int:
    arguments = parsed(*(given or sys.argv[1:]))
    with Replication(2) as replication, tempfile.TemporaryDirectory() as folder:
        counts = asyncio.run(measure(replication, arguments, Path(folder)))
    print(counts)
    return 1 if counts.stale or counts.failed else 0


def parsed(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--driver", default="asyncpg", help="as the tests name it")
    parser.add_argument("--faults", default=" ".join(FAULTS))
    parser.add_argument("--every", type=float, default=10.0, help="seconds")
    parser.add_argument("--delay", type=int, default=0, help="milliseconds")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())

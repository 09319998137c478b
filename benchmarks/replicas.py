"""What it costs to read from a replica: CPU and calls, over the same read without one.

    PYTHONPATH=src:tests:tools .venv-bench/bin/python -m benchmarks.replicas

All units read one row from the same replica: by a database that is the replica; by one
that has the replica; and by that, with the token of a write. Their turns alternate, so
that what else the machine does matters to all of them alike. Calls are those of Python
and of C, and those of unitwork's own code among them; Python 3.12 can count them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import make_url, text

from servers.postgresql_replication import Replication
from unitwork import AsyncDatabase, current_unit

from .counts import AVAILABLE, calls_of

Read = Callable[[], Awaitable[None]]
QUERY = text("SELECT 1")


def reading(db: AsyncDatabase, token: str | None = None) -> Read:
    async def read() -> None:
        async with db.transaction(read_only=True) as session:
            current_unit().read_after(token)
            await session.execute(QUERY)

    return read


async def cpu_of(read: Read, units: int) -> float:
    """Microseconds of this process per unit."""
    begun = time.process_time()
    for _ in range(units):
        await read()
    return (time.process_time() - begun) / units * 1e6


async def measure(replication: Replication, driver: str, rounds: int) -> None:
    def url(plain: str) -> str:
        return make_url(plain).set(drivername=driver).render_as_string(False)

    replica = url(replication.replica_urls[0])
    alone = AsyncDatabase(replica)
    db = AsyncDatabase(url(replication.primary_url), replicas=[replica])
    async with db.transaction() as session:
        await session.execute(text("CREATE TABLE written AS SELECT 1"))
        unit = current_unit()
    replication.wait_caught_up()
    reads = {
        "without replicas": reading(alone),
        "with replicas": reading(db),
        "with a token": reading(db, unit.token),
    }
    found: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(rounds):
        for name, read in reads.items():
            found[name].append(await cpu_of(read, 20))
    base = statistics.median(found["without replicas"])
    for name, times in found.items():
        median = statistics.median(times)
        counted = await calls_of(reads[name]) if AVAILABLE else {}
        calls, own = sum(counted.values()), counted.get("unitwork itself", 0)
        print(
            f"| {driver} | {name} | {median:.0f} | {median - base:+.1f} "
            f"| {calls:.0f} | {own:.0f} |",
            flush=True,
        )
    await alone.dispose()
    async with db.transaction() as session:
        await session.execute(text("DROP TABLE written"))
    await db.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    print("| driver | a read | CPU us | more | calls | of unitwork |")
    print("|---|---|--:|--:|--:|--:|")
    with Replication(1) as replication:
        for driver in ("postgresql+asyncpg", "postgresql+psycopg"):
            asyncio.run(measure(replication, driver, rounds))


if __name__ == "__main__":
    main()

"""Clients that write and read through any of several processes, and what they see."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from servers.postgresql_replication import Replication

TABLE = "CREATE TABLE written (id bigserial PRIMARY KEY, client int NOT NULL)"
INDEX = "CREATE INDEX ON written (client)"


@dataclass
class Counts:
    """What has happened so far."""

    pairs: int = 0
    stale: int = 0
    failed: int = 0
    from_replicas: int = 0
    faults: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        share = self.from_replicas / max(self.pairs, 1)
        lines = [
            "| pairs | stale | failed | reads from replicas | faults | seconds |",
            "|---|---|---|---|---|---|",
            f"| {self.pairs} | {self.stale} | {self.failed} | {share:.1%} | "
            f"{self.faults} | {self.seconds:.0f} |",
        ]
        return "\n".join([*lines, *self.errors[:20]])


class Workers:
    """The processes of the application."""

    def __init__(
        self, replication: Replication, arguments: argparse.Namespace, folder: Path
    ) -> None:
        self._replication = replication
        self._arguments = arguments
        self._folder = folder
        self._processes: list[Process] = []
        self.sockets: list[str] = []

    async def __aenter__(self) -> Self:
        urls = [self._replication.primary_url, *self._replication.replica_urls]
        for statement in (TABLE, INDEX):
            self._replication.primary.execute(statement)
        self._replication.wait_caught_up()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        for number in range(self._arguments.processes):
            socket = str(self._folder / f"worker{number}")
            command = [sys.executable, "-m", "stale.worker", socket]
            command += [self._arguments.driver, *urls]
            process = await asyncio.create_subprocess_exec(
                *command, stdout=PIPE, env=environment
            )
            self._processes.append(process)
            self.sockets.append(socket)
        for process in self._processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for process in self._processes:
            process.kill()
            await process.wait()


class Clients:
    """*count* clients of the *workers*; each makes one pair after the other."""

    def __init__(self, workers: Workers, count: int, *, seed: int) -> None:
        self._workers = workers
        self._count = count
        self._random = random.Random(seed)
        self.counts = Counts()

    async def run(self, *, pairs: int, seconds: float) -> None:
        begun = time.monotonic()
        clients = [
            self._be_client(number, pairs, begun + seconds)
            for number in range(self._count)
        ]
        await asyncio.gather(*clients)
        self.counts.seconds = time.monotonic() - begun

    async def _be_client(self, number: int, pairs: int, until: float) -> None:
        lines = [await asyncio.open_unix_connection(x) for x in self._workers.sockets]
        counts, cookie, written = self.counts, "", 0
        while counts.pairs < pairs and time.monotonic() < until:
            counts.pairs += 1
            first, second = self._random.choices(lines, k=2)
            wrote = await _ask(first, "POST", number, cookie)
            if wrote["status"] != 200:
                counts.failed += 1
                counts.errors.append(f"write: {wrote}")
                continue
            cookie, written = wrote["cookie"], written + 1
            read = await _ask(second, "GET", number, cookie)
            if read["status"] != 200:
                counts.failed += 1
                counts.errors.append(f"read: {read}")
                continue
            counts.from_replicas += read["body"]["replica"]
            if read["body"]["writes"] < written:
                counts.stale += 1
                counts.errors.append(f"stale: {written} written, {read}")
        for _, writer in lines:
            writer.close()


async def _ask(
    line: tuple[StreamReader, StreamWriter], method: str, client: int, cookie: str
) -> Any:
    reader, writer = line
    asked = {"method": method, "client": client, "cookie": cookie}
    writer.write(json.dumps(asked).encode() + b"\n")
    return json.loads(await reader.readline())

"""Several servers that are started together, and stopped and removed together."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from .server_process import ServerProcess
from .supervisor import Supervisor


class ServerGroup:
    """Servers that live as long as the block.

    They keep their numbers and addresses. Methods return when what they are for has
    happened. They may be called in any thread, by one at a time; they block it.
    """

    def __init__(self, name: str, *, signals: str) -> None:
        self._supervisor = Supervisor(name, signals=signals)

    def __enter__(self) -> Self:
        self._supervisor.__enter__()
        try:
            self._make()
        except BaseException:
            self._supervisor.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._supervisor.__exit__(kind, error, traceback)

    def _make(self) -> None:
        """Make the files of the servers, and start them."""
        raise NotImplementedError


def start_all(servers: Sequence[ServerProcess]) -> None:
    """Start *servers* side by side, and wait until all accept connections."""
    for server in servers:
        server.begin_start()
    for server in servers:
        server.wait_until_ready()

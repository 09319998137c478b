"""A contestant behind a real server, uvicorn, in its worker's process."""

import asyncio
import socket

import uvicorn

from .worker import Stage

_serving: set[asyncio.Task[None]] = set()


async def serve(stage: Stage) -> int:
    """Serve from now on; give the port."""
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    # The worker has started the application up, and will shut it down.
    config = uvicorn.Config(
        stage.app, log_config=None, access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    _serving.add(asyncio.create_task(server._serve([listening])))
    return int(listening.getsockname()[1])

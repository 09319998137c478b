"""One process of the application: `python -m stale.worker SOCKET DRIVER URLS...`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import Flavour, kind_of
from support.replicated import SECRET, with_driver
from unitwork import DBSessionMiddleware, transactional
from unitwork.replicas import SignedCookie


def application(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    db = flavour.db
    carrier = SignedCookie(SECRET)
    app.add_middleware(DBSessionMiddleware, db=db, read_your_writes=carrier)

    def read(session: Session, client: int) -> dict[str, Any]:
        found = session.execute(text(READ), {"client": client}).one()
        return {"writes": found[0], "replica": found[1]}

    def write(session: Session, client: int) -> None:
        session.execute(text(WRITE), {"client": client})

    for method, body in (("GET", read), ("POST", write)):
        endpoint = _endpoint(flavour, body)
        options = transactional(read_only=method == "GET")
        app.add_api_route("/{client}", options(endpoint), methods=[method])
    return app


READ = """
SELECT (SELECT count(*) FROM written WHERE client = :client), pg_is_in_recovery()
"""
WRITE = "INSERT INTO written (client) VALUES (:client)"


def _endpoint(flavour: Flavour, body: Any) -> Any:
    db = flavour.db
    if flavour.is_async:

        async def async_endpoint(client: int) -> Any:
            return await db.current.run_sync(body, client)

        return async_endpoint

    def endpoint(client: int) -> Any:
        return body(db.current, client)

    return endpoint


async def serve(socket: str, driver: str, primary: str, *replicas: str) -> None:
    urls = [with_driver(url, driver) for url in replicas]
    url = with_driver(primary, driver)
    flavour = Flavour(driver, url, kind_of(driver)(url, replicas=urls, pool_size=20))
    app = application(flavour)

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            headers = [(b"cookie", asked["cookie"].encode())]
            path = f"/{asked['client']}"
            reply = await call(app, asked["method"], path, headers=headers)
            found = dict(reply.starts[0]["headers"]) if reply.starts else {}
            cookie = found.get(b"set-cookie", b"").partition(b";")[0].decode()
            body = reply.json if reply.status == 200 else repr(reply.error)
            said = {"status": reply.status, "cookie": cookie, "body": body}
            writer.write(json.dumps(said).encode() + b"\n")
        writer.close()

    server = await asyncio.start_unix_server(answer, socket)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))

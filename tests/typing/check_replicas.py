"""What mypy and pyright know of replicas; never run."""

from collections.abc import Mapping
from typing import Any, assert_type

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from unitwork import AsyncDatabase, Database, DBSessionMiddleware, current_unit
from unitwork.replicas import ReplicaStatus, SignedCookie, SignedHeader, TokenCarrier

engine = create_engine("postgresql+psycopg://db2/app")
async_engine = create_async_engine("postgresql+asyncpg://db2/app")

db = AsyncDatabase("postgresql+asyncpg://db1/app", replicas=["postgresql://db2/app"])
AsyncDatabase(async_engine, replicas=[async_engine])
AsyncDatabase(async_engine, replicas=lambda: [async_engine])
AsyncDatabase(async_engine, replicas=[engine])  # type: ignore[list-item]
Database(engine, replicas=["postgresql+psycopg://db2/app", engine])
Database(engine, replicas=[async_engine])  # type: ignore[list-item]
assert_type(db.replica_status(), list[ReplicaStatus])
assert_type(db.replica_status()[0].lag, float | None)
assert_type(db.replica_status()[0].name, str)
db.transaction(read_only=True, replica=False)
db.transaction(replica="no")  # type: ignore[arg-type]

unit = current_unit()
assert_type(unit.token, str | None)
unit.read_after(unit.token)
unit.read_after(42)  # type: ignore[arg-type]


class Store:
    def read(self, scope: Mapping[str, Any]) -> str | None:
        return None

    def write(self, scope: Mapping[str, Any], token: str) -> list[tuple[bytes, bytes]]:
        return []


carrier: TokenCarrier = Store()
carrier = SignedCookie("secret", samesite="strict")
carrier = SignedHeader([b"secret"])
app: Any = None
DBSessionMiddleware(app, db, read_your_writes=carrier)
DBSessionMiddleware(app, db, read_your_writes=False)
DBSessionMiddleware(app, db, read_your_writes="cookie")  # type: ignore[arg-type]
SignedCookie("secret", samesite="never")  # type: ignore[arg-type]

"""What mypy and pyright know of events; never run."""

from collections.abc import Callable
from typing import assert_type

from unitwork import (
    AsyncDatabase,
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    Outcome,
)
from unitwork.events import (
    CallSite,
    CommitAnswered,
    ConnectionTaken,
    ConnectionUse,
    Event,
    FailureLog,
    Observer,
    PoolEvent,
    UnitEnded,
    UnitEvent,
    UnitInfo,
)


class Prints:
    def on_event(self, event: Event) -> None:
        if isinstance(event, UnitEnded):
            assert_type(event.outcome, Outcome)
            assert_type(event.use, ConnectionUse)
            assert_type(event.use.pools, tuple[str, ...])
            assert_type(event.sqlstate, str | None)
            event.reason = ""  # type: ignore[misc]
        elif isinstance(event, ConnectionTaken):
            assert_type(event.call_site, CallSite | None)
            assert_type(event.pool, str)
        elif isinstance(event, PoolEvent):
            assert_type(event.unit, UnitInfo | None)


class Wrong:
    def on_event(self, event: str) -> None: ...


observer: Observer = Prints()
db = Database("sqlite://", observers=[observer])
async_db = AsyncDatabase("sqlite+aiosqlite://", observers=[observer])
assert_type(db.observe(observer), Callable[[], None])
async_db.observe(observer, only=[CommitAnswered, UnitEvent], show_sql=True)
db.observe(Wrong())  # type: ignore[arg-type]
db.observe(observer, only=[int])  # type: ignore[list-item]


def tags(unit: UnitInfo) -> dict[str, str]:
    return {"route": unit.route or ""}


DatabaseSettings(sql_tags=tags)
DatabaseSettings(sql_tags=len)  # type: ignore[arg-type]
DatabaseSettings(application_name=lambda unit: unit.description)
DatabaseSettings(application_name=tags)  # type: ignore[arg-type]
observer = FailureLog("app")


async def app(scope: object, receive: object, send: object) -> None: ...


DBSessionMiddleware(app, db, server_timing=lambda scope: scope["path"] == "/")

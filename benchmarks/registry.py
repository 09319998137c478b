"""Who takes part, and in which venv. Imports nothing that has to be installed."""

import json
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).parents[1]
VENV = ".venv-bench"
MISSING = "missing.json"
"""A file in our venv: why a package could not be installed."""

Kind = Literal["async", "sync"]
BOTH: tuple[Kind, ...] = ("async", "sync")
DRIVERS: dict[str, Kind] = {
    "asyncpg": "async",
    "psycopg-async": "async",
    "psycopg": "sync",
    "aiosqlite": "async",
    "sqlite3": "sync",
}
DIALECTS = {
    "asyncpg": "postgresql+asyncpg",
    "psycopg-async": "postgresql+psycopg_async",
    "psycopg": "postgresql+psycopg",
    "aiosqlite": "sqlite+aiosqlite",
    "sqlite3": "sqlite",
}


class Contestant(NamedTuple):
    """One way to come by a session and to end its transaction."""

    name: str
    """That of its module, too."""
    title: str
    kinds: tuple[Kind, ...] = BOTH
    package: str | None = None
    """What pip is to install for it, in the version that constraints.txt says."""
    without: tuple[str, ...] = ()
    """Workloads that it does not have."""
    apart: tuple[str, ...] = ()
    """Requirements that clash with those of the others: it gets a venv of its own."""
    fetched: bool = False
    """Whether the endpoint asks for the session, and is not given it by `Depends()`."""


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("limit", "sessionmaker.begin() inline"),
        Contestant(
            "bare",
            "no middleware",
            without=("read", "write", "mixed", "reads", "missing", "stream"),
        ),
        Contestant("unitwork", "unitwork, Depends(db.session)"),
        Contestant("unitwork_current", "unitwork, db.current", fetched=True),
        Contestant("depends", "Depends(get_db)"),
        Contestant("depends_function", 'Depends(get_db, scope="function")'),
        Contestant("article", "the article's BaseHTTPMiddleware"),
        Contestant(
            "fastapi_sqlalchemy",
            "FastAPI-SQLAlchemy",
            kinds=("sync",),
            package="FastAPI-SQLAlchemy",
            fetched=True,
        ),
        Contestant(
            "fastapi_async_sqlalchemy",
            "fastapi-async-sqlalchemy",
            kinds=("async",),
            package="fastapi-async-sqlalchemy",
            fetched=True,
        ),
        Contestant(
            "fastapi_sqla",
            "fastapi-sqla",
            package="fastapi-sqla",
            apart=("fastapi==0.141.1",),
        ),
        Contestant("fastsqla", "FastSQLA", kinds=("async",), package="FastSQLA"),
        Contestant("advanced_alchemy", "advanced-alchemy", package="advanced-alchemy"),
        Contestant(
            "context_async_sqlalchemy",
            "context-async-sqlalchemy",
            kinds=("async",),
            package="context-async-sqlalchemy",
            fetched=True,
        ),
        Contestant(
            "context_async_sqlalchemy_asgi",
            "context-async-sqlalchemy, ASGI",
            kinds=("async",),
            package="context-async-sqlalchemy",
            fetched=True,
        ),
        Contestant(
            "fastapi_toolsets",
            "fastapi-toolsets",
            kinds=("async",),
            package="fastapi-toolsets",
        ),
    )
}


STANDARDS = ("limit", "bare")
"""By them all others are measured."""

PEERS = {
    contestant.package: contestant
    for contestant in CONTESTANTS.values()
    if contestant.package is not None
}


def home(contestant: Contestant | None = None) -> Path:
    """The venv of *contestant*; of all that need none of their own, without one."""
    if contestant is not None and contestant.apart:
        return ROOT / f"{VENV}-{contestant.package}"
    return ROOT / VENV


def why_missing(contestant: Contestant) -> str | None:
    """What pip said when it could not install *contestant*; `None` if it could."""
    file = home() / MISSING
    missing: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return missing.get(contestant.package or "")

"""Who takes part, and in which venv. Imports nothing that has to be installed."""

import json
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "benchmarks"
MISSING = "missing.json"
"""A file in our venv: why a package could not be installed."""

Kind = Literal["async", "sync"]
ASYNC: tuple[Kind, ...] = ("async",)
SYNC: tuple[Kind, ...] = ("sync",)
DIALECTS = {
    "asyncpg": "postgresql+asyncpg",
    "psycopg-async": "postgresql+psycopg_async",
    "psycopg": "postgresql+psycopg",
    "aiosqlite": "sqlite+aiosqlite",
    "sqlite3": "sqlite",
}
DRIVERS: dict[str, Kind] = {
    name: "sync" if name in ("psycopg", "sqlite3") else "async" for name in DIALECTS
}
POSTGRESQL = ("asyncpg", "psycopg-async", "psycopg")
POPULAR = ("asyncpg", "psycopg")


class Contestant(NamedTuple):
    """One way to get a session and to end its transaction."""

    title: str
    kinds: tuple[Kind, ...] = ASYNC + SYNC
    package: str = ""
    """What pip installs for it, in the version that constraints.txt pins."""
    apart: str = ""
    """A requirement that clashes with those of the others: it gets its own venv."""
    fetched: bool = False
    """Whether the endpoint fetches the session, and gets none by `Depends()`."""


CONTEXT = "context-async-sqlalchemy"
CONTESTANTS = {
    "limit": Contestant("sessionmaker.begin() inline"),
    "plain": Contestant("commit(), close() inline", ASYNC),
    "bare": Contestant("no middleware"),
    "unitwork": Contestant("unitwork, Depends(db.session)"),
    "unitwork_current": Contestant("unitwork, db.current", fetched=True),
    "before": Contestant("before, Depends(db.session)"),
    "before_current": Contestant("before, db.current", fetched=True),
    "depends": Contestant("Depends(get_db)"),
    "depends_function": Contestant('Depends(get_db, scope="function")'),
    "article": Contestant("the article's BaseHTTPMiddleware"),
    "fastapi_sqlalchemy": Contestant(
        "FastAPI-SQLAlchemy", SYNC, "FastAPI-SQLAlchemy", fetched=True
    ),
    "fastapi_async_sqlalchemy": Contestant(
        "fastapi-async-sqlalchemy", ASYNC, "fastapi-async-sqlalchemy", fetched=True
    ),
    "fastapi_sqla": Contestant(
        "fastapi-sqla", package="fastapi-sqla", apart="fastapi==0.141.1"
    ),
    "fastsqla": Contestant("FastSQLA", ASYNC, "FastSQLA"),
    "advanced_alchemy": Contestant("advanced-alchemy", package="advanced-alchemy"),
    "context": Contestant(CONTEXT, ASYNC, CONTEXT, fetched=True),
    "context_asgi": Contestant(f"{CONTEXT}, ASGI", ASYNC, CONTEXT, fetched=True),
    "fastapi_toolsets": Contestant("fastapi-toolsets", ASYNC, "fastapi-toolsets"),
}
STANDARDS = ("limit", "bare")
"""All others are measured against them."""
BEFORE = {"unitwork": "before", "unitwork_current": "before_current"}
"""Their counterparts in an earlier revision; they take part with --before."""
PEERS = {each.package: each for each in CONTESTANTS.values() if each.package}


def home(contestant: Contestant | None = None) -> Path:
    """The venv of *contestant*; without one, the venv that most of them share."""
    own = f"-{contestant.package}" if contestant and contestant.apart else ""
    return ROOT / f".venv-bench{own}"


def why_missing(contestant: Contestant) -> str | None:
    """What pip said when it could not install *contestant*; `None` if it could."""
    file = home() / MISSING
    missing: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return missing.get(contestant.package)

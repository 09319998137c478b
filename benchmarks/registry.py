"""Who takes part, and in which venv. Imports nothing that has to be installed."""

from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "benchmarks"
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


CONTEXT = "context-async-sqlalchemy"
CONTESTANTS = {
    "limit": Contestant("sessionmaker.begin() inline"),
    "plain": Contestant("commit(), close() inline", ASYNC),
    "bare": Contestant("no middleware"),
    "unitwork": Contestant("unitwork, Depends(db.session)"),
    "unitwork_current": Contestant("unitwork, db.current"),
    "before": Contestant("before, Depends(db.session)"),
    "before_current": Contestant("before, db.current"),
    "depends": Contestant("Depends(get_db)"),
    "depends_function": Contestant('Depends(get_db, scope="function")'),
    "article": Contestant("the article's BaseHTTPMiddleware"),
    "fastapi_sqlalchemy": Contestant("FastAPI-SQLAlchemy", SYNC, "FastAPI-SQLAlchemy"),
    "fastapi_async_sqlalchemy": Contestant(
        "fastapi-async-sqlalchemy", ASYNC, "fastapi-async-sqlalchemy"
    ),
    "fastapi_sqla": Contestant(
        "fastapi-sqla", ASYNC + SYNC, "fastapi-sqla", "fastapi==0.141.1"
    ),
    "fastsqla": Contestant("FastSQLA", ASYNC, "FastSQLA"),
    "advanced_alchemy": Contestant("advanced-alchemy", package="advanced-alchemy"),
    "context": Contestant(CONTEXT, ASYNC, CONTEXT),
    "context_asgi": Contestant(f"{CONTEXT}, ASGI", ASYNC, CONTEXT),
    "fastapi_toolsets": Contestant("fastapi-toolsets", ASYNC, "fastapi-toolsets"),
}
STANDARDS = ("limit", "bare")
"""All others are measured against them."""
BEFORE = {"unitwork": "before", "unitwork_current": "before_current"}
"""Their counterparts in an earlier revision; they take part with --before."""


def home(package: str = "") -> Path:
    """The venv that most contestants share, or that of *package* alone."""
    return ROOT / f".venv-bench{'-' * bool(package)}{package}"

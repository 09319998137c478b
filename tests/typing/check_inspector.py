"""What mypy and pyright know of the inspector; never run.

Each `type: ignore` is a mistake that mypy has to find: an unused one is an error.
"""

from typing import assert_type

from fastapi import FastAPI
from sqlalchemy import create_engine
from starlette.requests import Request
from starlette.routing import Mount

from unitwork import AsyncDatabase, Database
from unitwork.inspector import Inspector

db = AsyncDatabase("sqlite+aiosqlite://")
reports = Database("sqlite://", name="reports")


def is_admin(request: Request) -> bool:
    return request.headers.get("x-token") == "secret"


async def is_known(request: Request) -> bool:
    return bool(request.client)


def mounted() -> None:
    FastAPI().mount("/units", Inspector(db))
    Mount("/units", Inspector([db, reports], allow=is_admin, keep=50, show_sql=True))
    Inspector(db, allow=is_known)
    Inspector(create_engine("sqlite://"))
    assert_type(Inspector(db).close(), None)

    Inspector()  # type: ignore[call-arg]
    Inspector(db, allow=lambda request: "yes")  # type: ignore[arg-type, return-value]
    Inspector(db, keep="200")  # type: ignore[arg-type]

"""Show what a client gets when COMMIT fails: `python -m unitwork.demo`.

One endpoint in two applications: one with the usual dependency, `yield session` and
then `session.commit()`, and one with `DBSessionMiddleware`. Both run here, on SQLite
files in a temporary folder. It needs `pip install "unitwork[fastapi]"`.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse
from sqlalchemy import ForeignKey, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.requests import Request
from starlette.responses import Response

from . import Database, DBSessionMiddleware

__all__ = ["main"]

PATH, QUERY = "/items/", "owner_id=7"


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(
        # Checked at COMMIT, when the INSERT has succeeded.
        ForeignKey("owner.id", deferrable=True, initially="DEFERRED")
    )


def build_app(get_session: Callable[..., Any]) -> FastAPI:
    """Build the application, whose session comes from the dependency *get_session*."""
    app = FastAPI()
    injected = Depends(get_session)

    @app.post("/items/", status_code=201)
    def create_item(owner_id: int, session: Annotated[Session, injected]) -> Response:
        item = Item(owner_id=owner_id)
        session.add(item)
        session.flush()
        return PlainTextResponse(f"stored item {item.id}", 201)

    @app.exception_handler(IntegrityError)
    def answer_conflict(request: Request, error: IntegrityError) -> Response:
        return PlainTextResponse("no such owner", 409)

    return app


@contextmanager
def app_with_get_db(url: str) -> Iterator[FastAPI]:
    """The application as it is usually written."""
    engine = create_engine(url)
    event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA foreign_keys = ON"))
    Base.metadata.create_all(engine)

    def get_db() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.commit()

    yield build_app(get_db)
    engine.dispose()


@contextmanager
def app_with_unitwork(url: str) -> Iterator[FastAPI]:
    """The same application with the middleware."""
    db = Database(url)
    Base.metadata.create_all(db.engine)
    app = build_app(db.session)
    app.add_middleware(DBSessionMiddleware, db=db)
    yield app
    db.dispose()


class Result(NamedTuple):
    """What the client, the server's log and the database show."""

    status: str
    body: str
    logged: str
    rows: str


async def post(app: FastAPI) -> tuple[list[Any], str]:
    """Make the request as an ASGI server does; give the messages and the error."""
    scope: dict[str, Any] = {"type": "http", "method": "POST", "http_version": "1.1"}
    scope |= {"path": PATH, "query_string": QUERY.encode(), "headers": []}
    requests = [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return requests.pop() if requests else await asyncio.Future()

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await app({**scope, "asgi": {"version": "3.0"}}, receive, send)
    except Exception as error:
        return sent, f"{type(error.__cause__ or error).__name__}, after the response"
    return sent, "-"


def try_out(build: Callable[[str], AbstractContextManager[FastAPI]]) -> Result:
    """Send the request to one application, and count the rows from outside."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/items.db"
        with build(f"sqlite:///{file}") as app:
            (start, *bodies), logged = asyncio.run(post(app))
        with closing(sqlite3.connect(file)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM item").fetchone()
    status = HTTPStatus(start["status"])
    body = b"".join(message["body"] for message in bodies).decode()
    return Result(f"{status.value} {status.phrase}", body, logged, str(count))


def main() -> None:
    """Run the two applications, and print their results side by side."""
    titles = "", "yield session; commit()", "unitwork"
    names = f"POST {PATH}?{QUERY}", "", "the log of the server", "rows in the database"
    results = try_out(app_with_get_db), try_out(app_with_unitwork)
    print("An item is stored for an owner who does not exist. COMMIT fails.\n")
    for row in (titles, *zip(names, *results, strict=True)):
        print("{:28}{:36}{}".format(*row).rstrip())


if __name__ == "__main__":
    main()

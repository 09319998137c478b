"""fastapi-users with the session of the request, which its adapter commits."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import (
    AuthenticationBackend,
    BearerTransport,
    JWTStrategy,
)
from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.bcrypt import BcryptHasher
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase

from support.asgi import Reply, call
from support.flavours import Flavour, only
from support.pool import check_pool_is_whole
from unitwork import DBSessionMiddleware

adapter: Any = pytest.importorskip("fastapi_users_db_sqlalchemy")
pytestmark = [pytest.mark.anyio, only("aiosqlite", "asyncpg", "psycopg-async")]

SECRET = "a secret of 32 bytes, for the tests"
HASHES = PasswordHelper(PasswordHash((BcryptHasher(rounds=4),)))
ADA = {"email": "ada@example.org", "password": "engine"}


class Base(DeclarativeBase):
    pass


class User(adapter.SQLAlchemyBaseUserTableUUID, Base):  # type: ignore[misc]  # untyped
    pass


class UserManager(UUIDIDMixin, BaseUserManager[Any, uuid.UUID]):
    async def on_after_register(
        self, user: Any, request: Request | None = None
    ) -> None:
        if user.email.startswith("refused"):
            raise LookupError("the mail could not be sent")


def serve(flavour: Flavour) -> FastAPI:
    injected = Depends(flavour.db.session)

    async def manager(session: Annotated[Any, injected]) -> UserManager:
        return UserManager(adapter.SQLAlchemyUserDatabase(session, User), HASHES)

    def strategy() -> JWTStrategy[Any, uuid.UUID]:
        return JWTStrategy(secret=SECRET, lifetime_seconds=60)

    backend = AuthenticationBackend("jwt", BearerTransport("login"), strategy)
    users = FastAPIUsers[Any, uuid.UUID](manager, [backend])
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.include_router(
        users.get_register_router(schemas.BaseUser[uuid.UUID], schemas.BaseUserCreate)
    )
    app.include_router(users.get_auth_router(backend))

    known = Depends(users.current_user())

    @app.get("/me")
    async def me(user: Annotated[Any, known]) -> str:
        return str(user.email)

    return app


@pytest.fixture
async def app(flavour: Flavour) -> AsyncIterator[FastAPI]:
    async with flavour.db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield serve(flavour)
    async with flavour.db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


async def register(app: FastAPI, **changed: str) -> Reply:
    body = json.dumps(ADA | changed).encode()
    headers = [(b"content-type", b"application/json")]
    return await call(app, "POST", "/register", body=body, headers=headers)


async def test_a_user_registers_logs_in_and_is_known(
    flavour: Flavour, app: FastAPI
) -> None:
    registered = await register(app)
    form = f"username={ADA['email']}&password={ADA['password']}".encode()
    kind = [(b"content-type", b"application/x-www-form-urlencoded")]
    login = await call(app, "POST", "/login", body=form, headers=kind)
    bearer = b"Bearer " + login.json["access_token"].encode()
    me = await call(app, "GET", "/me", headers=[(b"authorization", bearer)])

    assert (registered.status, me.status, me.json) == (201, 200, ADA["email"])
    await check_pool_is_whole(flavour)


async def test_a_user_is_stored_once(flavour: Flavour, app: FastAPI) -> None:
    await register(app)
    again = await register(app)

    assert (again.status, again.json) == (
        400,
        {"detail": "REGISTER_USER_ALREADY_EXISTS"},
    )
    assert await flavour.work(count_users) == 1


async def test_what_the_adapter_has_committed_outlives_a_failure(
    flavour: Flavour, app: FastAPI
) -> None:
    reply = await register(app, email="refused@example.org")

    assert isinstance(reply.error, LookupError)
    assert await flavour.work(count_users) == 1


def count_users(session: Any) -> int:
    return session.scalar(select(func.count()).select_from(User)) or 0

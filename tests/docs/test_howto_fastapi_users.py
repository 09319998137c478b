"""The real fastapi-users."""

from __future__ import annotations

import asyncio

from fastapi.testclient import TestClient

from support.manual import Page

ADA = {"email": "ada@example.org", "password": "engine"}


def test_a_user_registers_logs_in_and_is_known(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        registered = client.post("/register", json=ADA)
        form = {"username": ADA["email"], "password": ADA["password"]}
        token = client.post("/login", data=form).json()["access_token"]
        me = client.get("/me", headers={"authorization": f"Bearer {token}"})

    assert (registered.status_code, me.json()) == (201, ADA["email"])


def test_an_adapter_that_only_flushes_leaves_the_commit_to_the_unit(page: Page) -> None:
    main = page.run()

    async def register_and_fail() -> int:
        async with main.db.engine.begin() as connection:
            await connection.run_sync(main.Base.metadata.create_all)
        await main.db.dispose()
        try:
            async with main.users_db.transaction() as session:
                adapter = main.SQLAlchemyUserDatabase(session, main.User)
                await adapter.create({"email": "a@b.org", "hashed_password": "x"})
                raise LookupError
        except LookupError:
            pass
        async with main.users_db.transaction() as session:
            adapter = main.SQLAlchemyUserDatabase(session, main.User)
            first = await adapter.get_by_email("a@b.org")
            await adapter.create({"email": "c@d.org", "hashed_password": "x"})
        async with main.users_db.transaction() as session:
            adapter = main.SQLAlchemyUserDatabase(session, main.User)
            second = await adapter.get_by_email("c@d.org")
        await main.users_db.dispose()
        return (first is None) and (second is not None)

    assert asyncio.run(register_and_fail())

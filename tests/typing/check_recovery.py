"""What mypy and pyright know of recovery; never run."""

from typing import Literal, assert_type

from fastapi import FastAPI

from unitwork import (
    AsyncDatabase,
    Database,
    DBSessionMiddleware,
    Recovered,
    arecover,
    recover,
)

orders = Database("postgresql+psycopg:///orders", name="orders")
stock = AsyncDatabase("postgresql+asyncpg:///stock", name="stock")
app = FastAPI()
app.add_middleware(DBSessionMiddleware, db=[orders, stock], twophase=True)

found = recover(orders, orders, min_age=0)
assert_type(found, list[Recovered])
assert_type(found[0].database, str)
assert_type(found[0].action, Literal["committed", "rolled back", "left"])
found[0].action = "left"  # type: ignore[misc]
recover(orders, stock)  # type: ignore[arg-type]


async def main() -> None:
    assert_type(await arecover(orders, stock), list[Recovered])

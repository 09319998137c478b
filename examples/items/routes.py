"""The endpoints. None of them commits, rolls back or closes: the middleware does."""

import logging
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from sqlalchemy import select

from unitwork.fastapi import UnitDep

from .database import SessionDep
from .models import Item, Owner
from .schemas import Id, ItemCreate, ItemRead, ItemUpdate, OwnerCreate, OwnerRead, Page

log = logging.getLogger(__name__)
router = APIRouter()


@router.post("/owners/", response_model=OwnerRead, status_code=201)
async def create_owner(owner: OwnerCreate, session: SessionDep) -> Owner:
    row = Owner(**owner.model_dump())
    session.add(row)
    await session.flush()  # gives it an id
    return row


@router.post("/items/", response_model=ItemRead, status_code=201)
async def create_item(item: ItemCreate, session: SessionDep, unit: UnitDep) -> Item:
    row = Item(**item.model_dump())
    session.add(row)
    await session.flush()
    unit.on_commit(log.info, "item %d is stored", row.id)  # and never before it is
    return row


@router.get("/items/", response_model=list[ItemRead])
async def read_items(
    session: SessionDep, page: Annotated[Page, Query()]
) -> Sequence[Item]:
    items = select(Item).order_by(Item.id).offset(page.skip).limit(page.limit)
    return (await session.scalars(items)).all()


@router.get("/items/{item_id}", response_model=ItemRead)
async def read_item(item_id: Id, session: SessionDep) -> Item:
    return await find(item_id, session)


@router.patch("/items/{item_id}", response_model=ItemRead)
async def update_item(item_id: Id, changes: ItemUpdate, session: SessionDep) -> Item:
    row = await find(item_id, session, lock=True)
    for name, value in changes.model_dump(exclude_unset=True).items():
        setattr(row, name, value)
    await session.flush()
    return row


@router.delete("/items/{item_id}", status_code=204)
async def delete_item(item_id: Id, session: SessionDep) -> None:
    await session.delete(await find(item_id, session, lock=True))


async def find(item_id: int, session: SessionDep, *, lock: bool = False) -> Item:
    """Get an item or answer 404; lock it if it is to be changed."""
    row = await session.get(Item, item_id, with_for_update=lock)
    if row is None:
        raise HTTPException(404, f"There is no item {item_id}.")
    return row

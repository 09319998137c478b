"""The tables. The database has the last word on what may be stored in them."""

from decimal import Decimal
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Connection,
    ForeignKey,
    Numeric,
    String,
    event,
    insert,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DEFAULT_OWNER = 1  # of items for which no owner is given


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owners"
    __table_args__ = (CheckConstraint("trim(name) <> ''", name="owner_has_a_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)


@event.listens_for(Owner.__table__, "after_create")
def add_default_owner(_: object, connection: Connection, **__: Any) -> None:
    """Store the first owner of the new table, who has the id `DEFAULT_OWNER`."""
    connection.execute(insert(Owner).values(name="default owner"))


class Item(Base):
    __tablename__ = "items"
    __table_args__ = (
        CheckConstraint("trim(name) <> ''", name="item_has_a_name"),
        CheckConstraint("price > 0", name="price_is_positive"),
        CheckConstraint("tax >= 0", name="tax_is_not_negative"),
        CheckConstraint("tax <= price", name="tax_is_within_price"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str | None]
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    tax: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    owner_id: Mapped[int] = mapped_column(ForeignKey("owners.id"))

"""The tables of the tests. `Child.parent_id` is checked at COMMIT, and not before."""

from __future__ import annotations

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Child(Base):
    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(
        ForeignKey("item.id", deferrable=True, initially="DEFERRED")
    )


def add_item(session: Session, name: str = "one") -> Item:
    item = Item(name=name)
    session.add(item)
    session.flush()
    return item


def add_orphan(session: Session) -> None:
    """Write what only COMMIT will refuse."""
    session.add(Child(parent_id=999))
    session.flush()


def names(session: Session) -> list[str]:
    return list(session.scalars(select(Item.name).order_by(Item.id)))

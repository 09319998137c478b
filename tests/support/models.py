"""The tables of the tests. `Child.parent_id` is checked at COMMIT, and not before."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, ForeignKey, String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)


class Child(Base):
    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(
        ForeignKey("item.id", deferrable=True, initially="DEFERRED")
    )


def create_tables(bind: Connection | Engine, *, anew: bool = False) -> None:
    """MariaDB has to do without `Child`: it checks everything at once."""
    tables = [Item.__table__] if bind.dialect.name == "mysql" else None
    if anew:
        Base.metadata.drop_all(bind, tables)
    Base.metadata.create_all(bind, tables)


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

"""Engines and sessionmakers of either flavour."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from support.flavours import Flavour


def open_engine(flavour: Flavour) -> Any:
    return (create_async_engine if flavour.is_async else create_engine)(flavour.url)


def make_maker(flavour: Flavour, engine: Any = None, **options: Any) -> Any:
    maker: Any = async_sessionmaker if flavour.is_async else sessionmaker
    return maker(engine, **options)


def over(flavour: Flavour, source: Any, **options: Any) -> Flavour:
    """A database of the same flavour made from *source*."""
    return Flavour(flavour.name, flavour.url, type(flavour.db)(source, **options))

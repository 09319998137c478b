"""What a contestant is built from, and what comes out.

A module of this package has `build(setup)`, which gives a FastAPI application and the
contestant's way to make an endpoint of work with a session.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from fastapi import FastAPI
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from ..registry import DIALECTS, DRIVERS
from ..workloads import Wrap


@dataclass(frozen=True, eq=False)
class Setup:
    """What a contestant is built for."""

    driver: str
    url: str
    """With the driver in it."""
    options: Mapping[str, Any]
    """For the engine."""

    @property
    def is_async(self) -> bool:
        return DRIVERS[self.driver] == "async"

    @property
    def engine(self) -> Engine:
        return create_engine(self.url, **self.options)

    @property
    def async_engine(self) -> AsyncEngine:
        return create_async_engine(self.url, **self.options)

    @property
    def factory(self) -> sessionmaker[Session]:
        return sessionmaker(self.engine)

    @property
    def async_factory(self) -> async_sessionmaker[AsyncSession]:
        return async_sessionmaker(self.async_engine, expire_on_commit=False)


class Built(NamedTuple):
    """A contestant, ready to run."""

    app: FastAPI
    wrap: Wrap
    autocommit: Wrap | None = None
    """The same without a transaction, if it has such a thing."""


def setup_for(driver: str, url: str, options: Mapping[str, Any]) -> Setup:
    """Adapt *url* to *driver*."""
    dialect = make_url(url).set(drivername=DIALECTS[driver])
    return Setup(driver, dialect.render_as_string(hide_password=False), options)


def quieten_structlog() -> None:
    """Only warnings, as in production: what is not logged shall not be measured."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING)
    )


def build(name: str, setup: Setup) -> Built:
    """Build the contestant *name*; raises `ImportError` where it is not installed."""
    built: Built = import_module(f"{__name__}.{name}").build(setup)
    return built

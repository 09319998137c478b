"""The limit: nothing between the endpoint and SQLAlchemy. All are measured by it."""

from fastapi import FastAPI

from . import Built, Setup
from .ways import async_opened, opened


def build(setup: Setup) -> Built:
    if setup.is_async:
        return Built(FastAPI(), async_opened(setup.async_factory.begin))
    return Built(FastAPI(), opened(setup.factory.begin))

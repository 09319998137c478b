"""The article's application."""

from __future__ import annotations

from fastapi import FastAPI

from support.flavours import Flavour
from unitwork import DBSessionMiddleware


def application(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app

"""fastapi-toolsets: `Depends(db)`."""

from fastapi import Depends, FastAPI
from fastapi_toolsets.db import Database

from . import Built, Setup
from .ways import injected


def build(setup: Setup) -> Built:
    db = Database(engine=setup.async_engine)
    app = FastAPI()
    db.install(app)
    return Built(app, injected(Depends(db)))

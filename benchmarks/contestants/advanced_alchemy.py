"""advanced-alchemy's extension for FastAPI, with `commit_mode="autocommit"`."""

from advanced_alchemy.extensions.fastapi import (
    AdvancedAlchemy,
    AsyncSessionConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemySyncConfig,
)
from fastapi import Depends, FastAPI

from . import Built, Setup
from .ways import injected


def build(setup: Setup) -> Built:
    config: SQLAlchemyAsyncConfig | SQLAlchemySyncConfig
    if setup.is_async:
        config = SQLAlchemyAsyncConfig(
            engine_instance=setup.async_engine,
            session_config=AsyncSessionConfig(expire_on_commit=False),
            commit_mode="autocommit",
        )
    else:
        config = SQLAlchemySyncConfig(
            engine_instance=setup.engine, commit_mode="autocommit"
        )
    app = FastAPI()
    alchemy = AdvancedAlchemy(config=config, app=app)
    return Built(app, injected(Depends(alchemy.provide_session())))

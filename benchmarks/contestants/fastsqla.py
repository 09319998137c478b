"""FastSQLA, as its README has it: a lifespan and an annotation."""

from typing import get_args

import fastsqla
from fastapi import FastAPI

from . import Built, Setup, quieten_structlog
from .ways import injected


def build(setup: Setup) -> Built:
    quieten_structlog()
    app = FastAPI(lifespan=fastsqla.new_lifespan(setup.url, **setup.options))
    _, depends = get_args(fastsqla.Session)
    return Built(app, injected(depends))

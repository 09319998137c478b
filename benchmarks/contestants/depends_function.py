"""The same, which FastAPI ends before the response starts."""

from . import Built, Setup, depends


def build(setup: Setup) -> Built:
    return depends.build(setup, scope="function")

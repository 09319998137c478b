"""The same, and the endpoint asks for the session itself, by `db.current`."""

from . import Built, Setup, unitwork


def build(setup: Setup) -> Built:
    return unitwork.build(setup, current=True)

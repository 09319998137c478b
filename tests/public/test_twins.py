"""`Database` and `AsyncDatabase` are called alike; only `await` tells them apart."""

import inspect

import pytest

from unitwork import AsyncDatabase, Database


def public_names(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def parameters(cls: type, name: str) -> list[tuple[str, object, object]]:
    """List name, kind and default of each parameter; a property has none."""
    member = inspect.getattr_static(cls, name)
    if not inspect.isroutine(member):
        return []
    found = inspect.signature(getattr(cls, name)).parameters.values()
    return [(each.name, each.kind, each.default) for each in found]


def test_have_the_same_public_names() -> None:
    assert public_names(Database) == public_names(AsyncDatabase)


@pytest.mark.parametrize("name", ["__init__", *sorted(public_names(Database))])
def test_take_the_same_parameters(name: str) -> None:
    assert parameters(Database, name) == parameters(AsyncDatabase, name)

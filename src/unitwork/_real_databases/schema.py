"""What the databases of tests contain: its fingerprint, and how it is created."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sqlalchemy import Connection, MetaData, create_mock_engine
from sqlalchemy.engine import URL

from .._redaction import described
from ..errors import UsageError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["Schema", "SchemaSource", "schema_of"]

Create: TypeAlias = Callable[[Connection], object]
SchemaSource: TypeAlias = (
    "MetaData | Sequence[MetaData] | Create | tuple[Create, str] | Config | None"
)

_GIVE = (
    "give a MetaData or several, a function that takes a Connection and creates the "
    "tables, that function with a key: (function, 'key'), or Alembic's Config"
)
_NOT_MIGRATED = (
    "Alembic has not migrated the database of the tests to {heads}: it is at {found}. "
    "The env.py must connect to what its config names: "
    "config.get_main_option('sqlalchemy.url')"
)


class Schema(NamedTuple):
    """The content of a new database: `migrate()` is called first, then `create()`.

    *fingerprint*: two schemas with the same one create the same content. Without one,
    the content is not known before it has been created: no other run may use it.
    """

    fingerprint: str | None
    create: Create
    migrate: Callable[[URL], object] = lambda url: None
    """Called without a connection, and outside of any event loop."""


def schema_of(source: SchemaSource, url: URL) -> Schema:
    """The schema that *source* describes, for a database such as *url*.

    Raises `UsageError` for anything that describes none.
    """
    if source is None:
        return Schema(_hash("empty"), lambda connection: None)
    if isinstance(source, MetaData):
        return _of_metadata([source], url)
    if _is_alembic_config(source):
        return _of_alembic(source)
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], str):
        return _of_function(source[0], source[1])
    if isinstance(source, Sequence) and all(isinstance(x, MetaData) for x in source):
        return _of_metadata(source, url)  # type: ignore[arg-type]  # all are
    return _of_function(source, None)


def _of_metadata(several: Sequence[MetaData], url: URL) -> Schema:
    statements: list[str] = []

    def note(statement: Any, *rest: object, **options: object) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)))

    engine = create_mock_engine(url, note)
    for metadata in several:
        metadata.create_all(engine, checkfirst=False)

    def create(connection: Connection) -> None:
        for metadata in several:
            metadata.create_all(connection)

    return Schema(_hash(*statements), create)


def _of_function(function: Any, key: str | None) -> Schema:
    if not callable(function) or inspect.isclass(function):
        raise UsageError(f"the schema is {described(function)}; {_GIVE}")
    if inspect.iscoroutinefunction(function):
        raise UsageError(
            f"the schema is the coroutine function {function.__qualname__}; give a "
            "plain function, which gets a sync Connection with every driver"
        )
    return Schema(None if key is None else _hash(key), function)


def _is_alembic_config(source: object) -> bool:
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(source).__mro__}
    return "alembic.config.Config" in names


def _of_alembic(config: Any) -> Schema:
    from alembic import command
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config)
    heads = sorted(scripts.get_heads())
    files = [Path(scripts.dir, "env.py")]
    files += sorted({Path(each.path) for each in scripts.walk_revisions()})

    def migrate(url: URL) -> None:
        plain = url.render_as_string(hide_password=False)
        before = config.get_main_option("sqlalchemy.url")
        config.set_main_option("sqlalchemy.url", plain.replace("%", "%%"))
        try:
            command.upgrade(config, "head")
        finally:
            config.set_main_option("sqlalchemy.url", (before or "").replace("%", "%%"))

    def check(connection: Connection) -> None:
        found = sorted(MigrationContext.configure(connection).get_current_heads())
        if found != heads:
            at = ", ".join(found) or "no revision"
            raise UsageError(_NOT_MIGRATED.format(heads=", ".join(heads), found=at))

    texts = [path.read_text() for path in files if path.exists()]
    return Schema(_hash(*heads, *texts), check, migrate)


def _hash(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]

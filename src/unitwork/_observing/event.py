"""What all events have in common, and who gets them."""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, field, make_dataclass
from operator import itemgetter
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    NoReturn,
    Protocol,
    Self,
    dataclass_transform,
)

from .subjects import UnitInfo

if TYPE_CHECKING:
    _Tuple = tuple[Any, ...]
else:
    _Tuple = tuple

__all__ = ["Event", "Observer", "PoolEvent", "UnitEvent", "make_event"]


class Observer(Protocol):
    """Gets the events of a database: see `Database.observe()`.

    .. versionadded:: 0.2
    """

    def on_event(self, event: Event, /) -> None:
        """Receive *event*.

        Called where it happens, at once: on the event loop, in a greenlet, in a worker
        thread or in that of the watchdog, by several of them at the same time. So it
        must not block, and must not use a database. An exception that it raises is
        logged, the first time, and changes nothing. A `KeyboardInterrupt` is raised
        further, but not while a connection changes hands.
        """
        ...


class _DataclassFields:
    """The fields of a class for the functions of `dataclasses`, once they need them."""

    def __get__(self, event: object, cls: type[_Record]) -> dict[str, Field[Any]]:
        made = make_dataclass(cls.__name__, cls.typed_fields(), frozen=True)
        found: dict[str, Field[Any]] = vars(made)["__dataclass_fields__"]
        return found


@dataclass_transform(frozen_default=True)
class _Record(_Tuple):
    """The base of events: tuples that `dataclasses` takes for frozen dataclasses.

    A subclass declares its fields. To make a tuple takes half of the time that an
    instance with attributes would take.
    """

    __slots__ = ()
    __dataclass_fields__ = _DataclassFields()

    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        own = [name for name in cls.__annotations__ if not name.startswith("_")]
        defaults = {name: vars(cls)[name] for name in own if name in vars(cls)}
        cls._defaults = {**cls._defaults, **defaults}
        for index, name in enumerate(own, len(cls._fields)):
            setattr(cls, name, property(itemgetter(index)))
        cls._fields = (*cls._fields, *own)
        setattr(cls, "__match_args__", cls._fields)  # noqa: B010  # typed by its kind

    @classmethod
    def typed_fields(cls) -> list[tuple[str, Any, Any]]:
        """Its fields, as `make_dataclass()` takes them."""
        kinds: dict[str, Any] = {}
        for each in reversed(cls.__mro__):
            kinds.update(vars(each).get("__annotations__", {}))
        return [
            (name, kinds[name], field(default=cls._defaults.get(name, MISSING)))
            for name in cls._fields
        ]

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> NoReturn:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")

        def __delattr__(self, name: str) -> NoReturn:
            raise FrozenInstanceError(f"cannot delete field {name!r}")

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            names = cls._fields
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            values = {**cls._defaults, **given}
            if len(args) + len(kwargs) != len(given) or values.keys() != {*names}:
                raise TypeError(f"{cls.__name__}() takes {', '.join(names)}")
            return tuple.__new__(cls, [values[name] for name in names])

    def __getnewargs__(self) -> _Tuple:
        return tuple(self)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:  # a tuple has its own
        return not self == other

    __hash__ = tuple.__hash__

    def __repr__(self) -> str:
        pairs = zip(self._fields, self, strict=True)
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in pairs)})"


class Event(_Record):
    """Something that has happened *at* a time, by `time.monotonic()`.

    .. versionadded:: 0.2
    """

    __slots__ = ()

    at: float


class UnitEvent(Event):
    """An event of one *unit* of work."""

    __slots__ = ()

    unit: UnitInfo


class PoolEvent(Event):
    """An event of a *pool* of a *database*; *unit* is `None` for other users of it.

    Each replica has a pool of its own, `"default, replica 1"`; that of the primary has
    the name of the database.
    """

    __slots__ = ()

    unit: UnitInfo | None
    database: str
    pool: str


make_event: Any = tuple.__new__
"""Makes an event of a class and a tuple of all its fields; nothing is checked."""

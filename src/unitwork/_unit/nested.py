"""What a block is inside another unit: the argument `nested` of `transaction()`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NoReturn, get_args

from ..errors import UsageError

__all__ = ["NESTED", "Nested"]


class _NotADependency:
    """Refuses `Depends(db.transaction)`, of which FastAPI gives an error of its own.

    It takes *nested* for a parameter of the request, and lets pydantic make its schema.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> NoReturn:
        raise UsageError(
            "db.transaction is no dependency but makes a block: write "
            "Depends(db.session) for the session of the request. For a unit of its own "
            "open the block in the body of the function: "
            "`async with db.transaction() as session:`, or `with` of a Database"
        )


_Name = Literal["own", "join", "savepoint"]
Nested = Annotated[_Name, _NotADependency()]
NESTED: tuple[str, ...] = get_args(_Name)

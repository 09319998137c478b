"""All operations: importing them registers them."""

from soak import driver_calls, side_work, statements, structure

__all__ = ["driver_calls", "side_work", "statements", "structure"]

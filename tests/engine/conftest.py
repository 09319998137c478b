"""Fixtures of the tests of engines."""

from support.pgbouncer import pgbouncer, pooled

__all__ = ["pgbouncer", "pooled"]

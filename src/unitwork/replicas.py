"""Reads from replicas: how clients carry the token of their writes."""

from ._asgi.carriers import SignedCookie, SignedHeader, TokenCarrier
from ._replicas.replica import ReplicaStatus

__all__ = ["ReplicaStatus", "SignedCookie", "SignedHeader", "TokenCarrier"]

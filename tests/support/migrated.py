"""The same requests to an application before and after its migration."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi.testclient import TestClient

__all__ = ["Items", "send_items"]


class Items(NamedTuple):
    statuses: list[int]
    stored: list[str]


def send_items(app: Any) -> Items:
    """Store one item, have one refused with 400, and list what is stored."""
    with TestClient(app) as client:
        replies = [client.post(f"/items/?name={name}") for name in ("lamp", "")]
        stored = client.get("/items/").json()
    return Items([reply.status_code for reply in replies], stored)

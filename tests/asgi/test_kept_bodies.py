"""What is kept for a second attempt is bounded: by bytes, and by messages."""

from __future__ import annotations

from typing import Any

from unitwork._asgi.body import is_kept, record
from unitwork._asgi.replay import Snapshot

LIMIT = 2**20


def recorded(message: dict[str, Any], times: int) -> Any:
    body = None
    for _ in range(times):
        body = record(body, message, LIMIT)
    return body


def test_messages_without_content_are_not_kept() -> None:
    body = recorded({"type": "http.request", "body": b"", "more_body": True}, 200_000)

    assert is_kept(body, LIMIT)
    assert body == {"type": "http.request", "body": b"", "more_body": True}


def test_a_body_in_very_many_messages_is_not_kept() -> None:
    body = recorded({"type": "http.request", "body": b"x", "more_body": True}, 200_000)

    assert not is_kept(body, LIMIT)
    assert body == []


def test_a_session_that_can_not_be_copied_forbids_a_retry_and_nothing_else() -> None:
    class Uncopied:
        def __deepcopy__(self, memo: object) -> Any:
            raise TypeError("not to be copied")

    assert not Snapshot({"session": {"a": Uncopied()}}).is_complete
    assert Snapshot({"session": {"a": [1]}}).is_complete

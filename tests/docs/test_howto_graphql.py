"""The real Strawberry: an answer with errors rolls back."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from support.manual import Page


def send(client: TestClient, query: str) -> Any:
    reply = client.post("/graphql", json={"query": query})
    assert reply.status_code == 200
    return reply.json()


def test_an_operation_is_stored_whole_or_not_at_all(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        added = send(client, 'mutation { add(name: "lamp") }')
        failed = send(client, 'mutation { add(name: "lost") fail }')
        listed = send(client, "{ a: names b: names c: names }")

    assert added == {"data": {"add": 1}}
    assert [error["message"] for error in failed["errors"]] == ["out of stock"]
    assert listed["data"] == {key: ["lamp"] for key in "abc"}
    assert 'mutation { add(name: "lamp") fail }' in page.text


def test_a_query_that_is_not_valid_is_answered(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        assert "nothing" in send(client, "{ nothing }")["errors"][0]["message"]
        assert client.post("/graphql", content="{").status_code == 400

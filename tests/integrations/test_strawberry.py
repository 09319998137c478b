"""Strawberry: a GraphQL answer with errors has status 200, and must not commit."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import strawberry
from fastapi import FastAPI
from strawberry.extensions import SchemaExtension
from strawberry.fastapi import GraphQLRouter

from support.asgi import Reply, call
from support.flavours import Flavour, Observer, only
from support.models import add_item
from unitwork import DBSessionMiddleware, current_unit

pytestmark = [pytest.mark.anyio, only("aiosqlite", "asyncpg", "psycopg-async")]


class RollBackOnErrors(SchemaExtension):
    def on_operation(self) -> Iterator[None]:
        yield
        result = self.execution_context.result
        if (
            getattr(result, "errors", None)
            or self.execution_context.pre_execution_errors
        ):
            current_unit().rollback_only("the GraphQL answer has errors")


@strawberry.type
class Query:
    hello: str = "world"


def serve(flavour: Flavour) -> FastAPI:
    @strawberry.type
    class Mutation:
        @strawberry.mutation
        async def add(self, name: str) -> int:
            item: int = await flavour.do(
                flavour.db.current, lambda s: add_item(s, name).id
            )
            return item

        @strawberry.mutation
        async def fail(self) -> int:
            raise LookupError("out of stock")

    schema = strawberry.Schema(
        query=Query, mutation=Mutation, extensions=[RollBackOnErrors]
    )
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.include_router(GraphQLRouter(schema), prefix="/graphql")
    return app


async def ask(flavour: Flavour, query: str) -> Reply:
    body = json.dumps({"query": query}).encode()
    return await call(serve(flavour), "POST", "/graphql", body=body)


async def test_a_mutation_is_committed(flavour: Flavour, observer: Observer) -> None:
    reply = await ask(flavour, 'mutation { add(name: "one") }')

    assert reply.json["data"]["add"] > 0
    assert observer.names() == ["one"]


async def test_an_answer_with_errors_rolls_all_of_it_back(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await ask(flavour, 'mutation { add(name: "one") fail }')

    assert reply.status == 200
    assert reply.json["errors"][0]["message"] == "out of stock"
    assert observer.names() == []


async def test_a_query_that_is_not_valid_is_no_failure_of_unitwork(
    flavour: Flavour,
) -> None:
    reply = await ask(flavour, "{ nothing }")

    assert (reply.status, reply.error) == (200, None)
    assert "nothing" in reply.json["errors"][0]["message"]

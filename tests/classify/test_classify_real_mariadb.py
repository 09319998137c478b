"""What errors mean: real ones of MariaDB."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support.flavours import MARIADB, Flavour, only
from support.meaning import meaning
from support.models import add_item
from support.rivals import Lose, lose_deadlock, lose_patience, lose_race, rival
from unitwork import Kind, Phase


@only(*MARIADB)
@pytest.mark.parametrize(
    ("lose", "kind", "code"),
    [
        (lose_deadlock, Kind.RETRY, 1213),
        (lose_race, Kind.RETRY, 1020),
        (lose_patience, Kind.RETRY_WITH_CARE, 1205),
    ],
)
async def test_somebody_who_gets_in_the_way_in_mariadb(
    flavour: Flavour, lose: Lose, kind: Kind, code: int
) -> None:
    with rival(flavour) as other:
        found = await meaning(flavour, lambda session: lose(session, other))

    assert (found.kind, found.code, found.family) == (kind, code, "mysql")
    assert found.poisons is (kind is Kind.RETRY)
    assert not found.disconnected


@only(*MARIADB)
@pytest.mark.parametrize(
    ("sql", "kind", "code"),
    [
        ("INSERT INTO item (name) VALUES ('red')", Kind.NEVER, 1062),
        ("INSERT INTO item (name) VALUES (NULL)", Kind.NEVER, 1048),
        ("SELECT * FROM nowhere", Kind.NEVER, 1146),
        ("SELECT nothing()", Kind.NEVER, 1305),
        ("ROLLBACK TO SAVEPOINT nowhere", Kind.DOOMED, 1305),
        ("KILL QUERY CONNECTION_ID()", Kind.TIMEOUT, 1317),
        (
            "SET STATEMENT max_statement_time = 0.05 FOR SELECT sleep(60)",
            Kind.TIMEOUT,
            1969,
        ),
    ],
)
async def test_a_statement_that_mariadb_refuses(
    flavour: Flavour, sql: str, kind: Kind, code: int
) -> None:
    with rival(flavour):
        found = await meaning(flavour, lambda session: session.execute(text(sql)))

    assert (found.kind, found.code, found.family) == (kind, code, "mysql")
    assert (found.poisons, found.disconnected) == (False, False)


@only(*MARIADB)
async def test_a_write_in_a_read_only_transaction_of_mariadb(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        session.execute(text("SET TRANSACTION READ ONLY"))
        add_item(session)

    found = await meaning(flavour, body)

    assert (found.kind, found.code, found.poisons) == (Kind.PRIMARY, 1792, False)


@only(*MARIADB)
@pytest.mark.parametrize(
    ("part", "code"), [({"database": "nowhere"}, 1049), ({"username": "nobody"}, 1045)]
)
async def test_a_door_that_mariadb_keeps_shut(
    flavour: Flavour, part: dict[str, str], code: int
) -> None:
    url = make_url(flavour.url).set(**part)
    away = replace(flavour, url=url.render_as_string(False)).another()

    found = await meaning(away, add_item)

    assert (found.kind, found.code, found.phase) == (Kind.NEVER, code, Phase.CONNECT)
    await away.dispose()

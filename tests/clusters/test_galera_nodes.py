"""The private Galera cluster does what the tests that use it rely on."""

from __future__ import annotations

import pymysql
import pytest

from servers.galera import Galera

INSERT = "INSERT INTO item (name) VALUES ('one')"
COUNT = "SELECT count(*) FROM item"
CAUSAL = f"SET STATEMENT wsrep_sync_wait=1 FOR {COUNT}"
NO_CLUSTER = 1047


def test_what_one_node_has_committed_all_have(galera: Galera) -> None:
    galera.nodes[0].ask(INSERT)

    assert [node.ask(CAUSAL) for node in galera.nodes] == [1, 1, 1]


def test_a_killed_node_gets_what_it_missed(galera: Galera) -> None:
    galera.kill(2)
    galera.nodes[0].ask(INSERT)
    galera.start(2)

    assert galera.nodes[2].ask(CAUSAL) == 1


def test_a_node_alone_refuses_to_work(galera: Galera) -> None:
    galera.stop_quorum(alone=1)
    with pytest.raises(pymysql.err.OperationalError) as refused:
        galera.nodes[1].ask(COUNT)
    galera.restore_quorum()

    assert refused.value.args[0] == NO_CLUSTER
    assert galera.nodes[1].ask(CAUSAL) == 0

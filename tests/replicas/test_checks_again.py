"""How a replica that is not used is looked at again."""

from __future__ import annotations

import pytest

from support.flavours import Flavour, Observer, only
from support.models import names
from unitwork._replicas.replica import Replica
from unitwork._replicas.replica_connections import check

pytestmark = pytest.mark.anyio


@only("psycopg")
async def test_a_connection_that_is_lost_meanwhile_is_discarded_in_silence(
    flavour: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica(flavour.sync_engine, "default, replica 1")
    await flavour.work(names)
    observer.terminate_all()

    check(replica, max_lag=None)

    assert not replica.usable
    assert "Exception during reset" not in caplog.text

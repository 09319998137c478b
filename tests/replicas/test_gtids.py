"""Positions of MariaDB: what they are in tokens, and which one covers another."""

from __future__ import annotations

import pytest

from unitwork import UsageError
from unitwork._driver.gtids import Gtids, covers, latest_of, read_gtids
from unitwork._driver.wal_position import WalPosition
from unitwork._replicas.position import Position, decode, encode

WAL = WalPosition(0xFFFFFFFF, 2, 0x1F)


def gtids(text: str) -> Gtids:
    found = read_gtids(text)
    assert found is not None
    return found


@pytest.mark.parametrize("at", [None, WAL, gtids("0-1-105"), gtids("0-1-5,7-2-8")])
def test_a_token_has_the_position_of_each_kind(at: object) -> None:
    positions = {"default": Position(at, 1000.0)}  # type: ignore[arg-type]
    token = encode(positions)

    assert decode(token) == {"default": Position(at, 1001.0)}  # type: ignore[arg-type]
    assert not set(token) & set(' ",;\\')


@pytest.mark.parametrize("text", ["", "0-1", "0-1-2'", "0--1-2", "4294967296-1-2"])
def test_what_is_no_position_is_refused(text: str) -> None:
    assert read_gtids(text) is None
    with pytest.raises(UsageError, match="is no token"):
        decode(f"61.{text or '-'}.1f")


@pytest.mark.parametrize(
    ("reached", "needed", "is_covered"),
    [
        ("0-1-5", "0-2-5", False),
        ("0-1-5,0-2-7", "0-2-6", True),
        ("0-1-5", "0-1-6", False),
        ("0-1-5,1-1-2", "1-1-2", True),
        ("0-1-5", "0-1-5,1-1-1", False),
    ],
)
def test_all_domains_must_be_reached(
    reached: str, needed: str, is_covered: bool
) -> None:
    assert covers(gtids(reached), gtids(needed)) is is_covered


def test_the_newest_of_several_writes_counts_in_each_domain() -> None:
    both = latest_of(gtids("0-1-5,1-1-9"), gtids("0-1-6,1-1-8"))
    assert both == gtids("0-1-6,1-1-9")


def test_a_replica_waits_for_the_last_write_in_each_domain() -> None:
    assert gtids("0-1-7,0-2-6,1-1-9").position == "0-1-7,1-1-9"


def test_positions_of_different_servers_do_not_cover_each_other() -> None:
    assert latest_of(gtids("0-1-5"), WAL) is None
    assert not covers(WAL, gtids("0-1-5"))
    assert not covers(gtids("0-1-5"), WAL)

"""A unit's marks become the segments of its bar."""

from __future__ import annotations

from unitwork import Outcome
from unitwork._inspector.marks import TimelineMark
from unitwork._inspector.record import MOST_MARKS, MOST_STATEMENTS, UnitRecord
from unitwork._inspector.timeline import Segment, segments_of
from unitwork.events import UnitInfo

INFO = UnitInfo(1, "block", ("a",), None, 1, "", "", None, 0.0, 0.0)
COMMITTED = [
    TimelineMark(10.00, "waiting", database="a"),
    TimelineMark(10.20, "waited", 0.20, "a"),
    TimelineMark(10.21, "taken", database="a"),
    TimelineMark(10.22, "begun", 0.01, "a"),
    TimelineMark(10.30, "statement", 0.05, "a"),
    TimelineMark(10.40, "commit", database="a"),
    TimelineMark(10.45, "committed", 0.05, "a"),
    TimelineMark(10.46, "returned", 0.25, "a"),
    TimelineMark(10.50, "response", text="201"),
    TimelineMark(10.60, "completed"),
]


def drawn(
    marks: list[TimelineMark], outcome: Outcome | None = None, now: float = 11.0
) -> dict[str, tuple[float, float]]:
    return {
        each.kind: (each.start, each.end)
        for each in segments_of(marks, 10.0, now, outcome)
    }


def test_shows_what_happened_from_the_wait_to_the_last_chunk() -> None:
    assert drawn(COMMITTED, Outcome.COMMITTED) == {
        "idle": (0.21, 0.46),
        "wait": (0.0, 0.2),
        "begin": (0.21, 0.22),
        "statement": (0.25, 0.3),
        "commit": (0.4, 0.45),
        "body": (0.5, 0.6),
        "start": (0.5, 0.5),
    }


def test_what_goes_on_lasts_until_now() -> None:
    marks = [
        TimelineMark(10.1, "taken", database="a"),
        TimelineMark(10.2, "outside", text="model"),
    ]

    assert drawn(marks) == {"idle": (0.1, 1.0), "outside": (0.2, 1.0)}


def test_a_commit_without_an_answer_is_unknown() -> None:
    lost = [*COMMITTED[:5], COMMITTED[5], COMMITTED[6]._replace(failed=True)]

    assert "unknown" in drawn(lost, Outcome.UNKNOWN)
    assert "failed" in drawn(lost, Outcome.ROLLED_BACK)


def test_a_rollback_is_drawn_where_the_outcome_was_settled() -> None:
    assert drawn([TimelineMark(10.3, "settled", text="rolled back")]) == {
        "rollback": (0.3, 0.3)
    }


def test_segments_of_two_databases_are_kept_apart() -> None:
    marks = [
        TimelineMark(10.1, "taken", database="a"),
        TimelineMark(10.2, "taken", database="b"),
        TimelineMark(10.3, "returned", database="a"),
        TimelineMark(10.4, "returned", database="b"),
    ]

    found = [each for each in segments_of(marks, 10.0, 11.0, None)]
    assert found == [Segment("idle", 0.1, 0.3, "a"), Segment("idle", 0.2, 0.4, "b")]


def test_statements_above_the_limit_are_one_mark() -> None:
    record = UnitRecord(INFO)
    for second in range(MOST_STATEMENTS + 5):
        record.add_statement(TimelineMark(second + 1.0, "statement", 0.5, "a"))

    assert len(record.marks) == MOST_STATEMENTS + 1
    last = record.marks[-1]
    assert (last.text, last.at) == ("5 more statements", MOST_STATEMENTS + 5.0)
    assert record.statements == MOST_STATEMENTS + 5


def test_of_a_unit_that_goes_on_the_older_marks_are_dropped() -> None:
    record = UnitRecord(INFO)
    for message in range(MOST_MARKS):
        for kind in ("taken", "statement", "commit", "committed", "settled"):
            mark = TimelineMark(float(message), kind, database="a")
            (record.add_statement if kind == "statement" else record.add)(mark)

    assert len(record.marks) <= MOST_MARKS
    assert record.marks[-1].at == MOST_MARKS - 1

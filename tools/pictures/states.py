"""The states of a unit of work, from the table by which unitwork moves them."""

from __future__ import annotations

from unitwork._unit.state import NEXT_STATES, UnitState

from .svg import Picture

__all__ = ["draw"]

_OPEN, _ENDING, _COMMITTING = UnitState.OPEN, UnitState.ENDING, UnitState.COMMITTING
_ROLLING_BACK, _SETTLED, _CLOSED = (
    UnitState.ROLLING_BACK,
    UnitState.SETTLED,
    UnitState.CLOSED,
)
_BOXES = {
    # The middle of its upper edge, its width, its kind, and what happens in it.
    _OPEN: (200, 14, 180, "blues", "the application works"),
    _ENDING: (200, 104, 180, "blues", "before_commit hooks"),
    _COMMITTING: (92, 214, 150, "greens", "COMMIT is sent"),
    _ROLLING_BACK: (308, 214, 150, "reds", "ROLLBACK is sent"),
    _SETTLED: (200, 324, 180, "box", "the other hooks"),
    _CLOSED: (200, 414, 180, "box", "sessions are closed"),
}
_HEIGHT = 44
_ARROWS = {
    # The corners of the arrow, then its label and where that is.
    (_OPEN, _ENDING): (
        [(200, 58), (200, 104)],
        "response starts, block ends",
        (207, 86),
    ),
    (_OPEN, _CLOSED): (
        [(290, 36), (392, 36), (392, 436), (290, 436)],
        "nothing open",
        (298, 29),
    ),
    (_ENDING, _COMMITTING): ([(130, 148), (100, 214)], "success", (62, 180)),
    (_ENDING, _ROLLING_BACK): ([(270, 148), (300, 214)], "failure", (297, 180)),
    (_ENDING, _SETTLED): (
        [(200, 148), (200, 324)],
        "nothing to commit",
        (148, 288),
    ),
    (_COMMITTING, _ROLLING_BACK): ([(167, 236), (233, 236)], "it fails", (176, 229)),
    (_COMMITTING, _SETTLED): ([(100, 258), (130, 324)], "", (0, 0)),
    (_ROLLING_BACK, _SETTLED): ([(300, 258), (270, 324)], "", (0, 0)),
    (_SETTLED, _OPEN): (
        [(110, 346), (8, 346), (8, 36), (110, 36)],
        "body, message",
        (16, 29),
    ),
    (_SETTLED, _CLOSED): (
        [(200, 368), (200, 414)],
        "the end of the unit",
        (207, 396),
    ),
}


def draw() -> str:
    picture = Picture(
        "The states of a unit of work",
        "; ".join(
            f"{state.label} to {' or '.join(one.label for one in sorted(after))}"
            for state, after in NEXT_STATES.items()
            if after
        ),
    )
    for state, following in NEXT_STATES.items():
        for after in sorted(following):
            corners, label, (x, y) = _ARROWS[state, after]
            picture.path(corners)
            if label:
                picture.text(x, y, label, "soft")
    for state, (x, y, width, kind, what) in _BOXES.items():
        picture.rect(x - width / 2, y, width, _HEIGHT, kind)
        picture.text(x, y + 18, state.name, "b", "middle")
        picture.text(x, y + 35, what, "", "middle")
    return picture.render(472)

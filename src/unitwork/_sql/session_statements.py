"""Which statements may leave session-level state behind on a connection: by their text.

Pure, and generous: a text can only suggest that it is time to look. What a function or
procedure does inside can't be seen here.

Sources: PostgreSQL, "DISCARD", "SET" and "Advisory Lock Functions"; MariaDB, "SET" and
"Resetting a connection" in MySQL's C API; SQLite, "PRAGMA Statements".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from .._patterns import pattern
from .sql_text import without_comments

__all__ = ["LONG", "Trace", "find_traces", "known_traces", "outlasting"]


class Trace(NamedTuple):
    """What a statement may leave behind.

    *label* names the statement, without its values. *is_certain*: it is there, unless
    the transaction was rolled back; otherwise the database can be queried.
    """

    label: str
    is_certain: bool
    remedy: str


_FLAGS = re.IGNORECASE | re.DOTALL


class _Pattern(NamedTuple):
    word: str
    """What any text that matches contains, in lower case: fast to look for."""
    regex: str
    """With one group: what the label shows. `re` compiles it, on first use."""
    remedy: str
    is_certain: bool
    begins: bool
    """Whether it counts only where a statement may begin."""


def find_traces(
    family: str, template: str, statement: str, parameters: Any
) -> Sequence[Trace]:
    """Return what *statement* may leave behind on a connection of *family*.

    *template* is its text before parameters were expanded: the same for many.
    """
    scan = _scan if len(template) > LONG else known_traces
    found = scan(family, template)
    if found and _CALLS_SET_CONFIG.search(template):
        return [
            trace
            for trace in found
            if trace.label != _SET_CONFIG or not _is_local(statement, parameters)
        ]
    return found


LONG = 4000  # such a text is not kept
_SET_CONFIG = "set_config()"
_CALLS_SET_CONFIG = pattern(r"\bset_config\"?\s*\(", re.IGNORECASE)
_TRUE = {"true", "t", "on", "yes", "y", "1"}

_XACT_LOCK = "use pg_advisory_xact_lock(), or release the lock before the unit ends"
_TEMPORARY = "create it with ON COMMIT DROP, or drop it before the unit ends"
_DROPPED = "drop it before the unit ends"
_OWN = "use a connection of its own for it, outside the pool"
_LOCAL = "use SET LOCAL, which ends with the transaction"

_BEGINS = pattern(
    r"(?:[;$]|\b(?:begin|atomic|then|else|loop|do)"
    r"|\bexecute\s+(?:immediate\s+)?(?:format\s*\(\s*)?')\s*$",
    re.IGNORECASE,
)
"""What precedes a statement: also inside a DO block, and in what it executes."""
_BEFORE = 40  # characters in which that is looked for

_HARMLESS_PRAGMAS = (
    "application_id|auto_vacuum|defer_foreign_keys|foreign_key_check|foreign_key_list|"
    "incremental_vacuum|index_info|index_list|index_xinfo|integrity_check|optimize|"
    "page_size|quick_check|schema_version|table_info|table_list|table_xinfo|"
    "user_version|wal_checkpoint"
)


def _pattern(
    word: str, regex: str, remedy: str, *, certain: bool = True, begins: bool = False
) -> _Pattern:
    return _Pattern(word, regex, remedy, certain, begins)


_uncertain = partial(_pattern, certain=False)
_at_start = partial(_pattern, begins=True)
_uncertain_at_start = partial(_pattern, certain=False, begins=True)

_POSTGRESQL = [
    _at_start(
        "set",
        r"\b(set\s+(?!local\b|transaction\b|constraints\b)(?:session\s+)?[\w.\"]+)",
        _LOCAL,
    ),
    _at_start("reset", r"\b(reset\s+[\w.\"]+)", _LOCAL),
    _at_start("discard", r"\b(discard\s+\w+)", _LOCAL),
    _at_start("load", r"\b(load)\s", _OWN),
    _pattern(
        "set_config",
        r"\b(set_config)\"?\s*\(",
        "give set_config() true as its third argument",
    ),
    _uncertain(
        "advisory_lock",
        r"\b(pg_(?:try_)?advisory_lock(?:_shared)?)\"?\s*\(",
        _XACT_LOCK,
    ),
    _uncertain(
        "temp",
        r"\b(create\s+(?:or\s+replace\s+)?(?:(?:global|local)\s+)?temp(?:orary)?)\b",
        _TEMPORARY,
    ),
    _uncertain(
        "temp", r"\b(into\s+(?:(?:global|local)\s+)?temp(?:orary)?)\b", _TEMPORARY
    ),
    _uncertain("pg_temp", r"(pg_temp)\"?\s*\.", _TEMPORARY),
    _uncertain("hold", r"\b(with\s+hold)\b", "close the cursor first"),
    _uncertain_at_start("listen", r"\b(listen)\s", _OWN),
    _uncertain_at_start(
        "prepare", r"\b(prepare)\s+(?!transaction\b)", "DEALLOCATE it first"
    ),
]
_MYSQL = [
    _at_start(
        "set",
        r"\b(set\s+(?!transaction\b|statement\b)(?:session\s+|local\s+)?[\w.@`]+)",
        "use SET STATEMENT ... FOR, or a connection of its own",
    ),
    _pattern(":=", r"(@[\w.$`]+)\s*:=", "use bound parameters"),
    _pattern("into", r"\b(into\s+@[\w.$`]+)", "use bound parameters"),
    _at_start(
        "call",
        r"\b(call\s+[\w.`]+)\s*\([^;]*?(?<=[\s,(])@[\w.$`]+",
        "let the procedure return rows, in place of its OUT parameters",
    ),
    _pattern("temporary", r"\b(create\s+(?:or\s+replace\s+)?temporary)\b", _OWN),
    _uncertain(
        "get_lock",
        r"\b(get_lock)`?\s*\(",
        "call RELEASE_LOCK() before the unit ends",
    ),
    _at_start("lock", r"\b(lock\s+tables?)\b", _OWN),
    _at_start("flush", r"\b(flush\s+(?:local\s+)?tables?)\b", _OWN),
    _at_start("prepare", r"\b(prepare)\s", _OWN),
    _at_start("use", r"\b(use)\s", _OWN),
    _at_start("handler", r"\b(handler)\s+\S+\s+open\b", _OWN),
]
_SQLITE = [
    _at_start(
        "pragma",
        r"\b(pragma\s+(?:\w+\s*\.\s*)?(?!(?:" + _HARMLESS_PRAGMAS + r")\b)\w+)"
        r"\s*[=(]",
        "set it in a `connect` listener of the engine",
    ),
    _uncertain_at_start("attach", r"\b(attach)\b", "DETACH it before the unit ends"),
    _uncertain("temp", r"\b(create\s+temp(?:orary)?)\b", _DROPPED),
    _uncertain("temp", r"\b(temp)\"?\s*\.", _DROPPED),
]
_PATTERNS = {
    "postgresql": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "sqlite": _SQLITE,
}


def _scan(family: str, text: str) -> Sequence[Trace]:
    lower = text.lower()
    patterns = [x for x in _PATTERNS.get(family, ()) if x.word in lower]
    if not patterns:
        return ()
    text = without_comments(family, text)
    found = []
    for each in patterns:
        for match in re.finditer(each.regex, text, _FLAGS):
            if each.begins and not _may_begin(text, match.start()):
                continue
            label = " ".join(match[1].split())
            if _CALLS_SET_CONFIG.match(match[0]):
                label = _SET_CONFIG
            found.append(Trace(label, each.is_certain, each.remedy))
    return tuple(dict.fromkeys(found))


def _may_begin(text: str, at: int) -> bool:
    before = text[max(0, at - _BEFORE) : at]
    return not before.strip() or _BEGINS.search(before) is not None


known_traces = lru_cache(maxsize=512)(_scan)
"""The traces in a template, which is not `LONG`; their values are not looked at."""

_ENDS_AT_COMMIT = (
    r"\bcreate\s+(?:(?:global|local)\s+)?temp(?:orary)?\s+table\s+"
    r"(?:if\s+not\s+exists\s+)?(?:\"?pg_temp\"?\s*\.\s*)?"
    r"(?=(?:'[^';]*'|\"[^\"]*\"|(\$\w*\$)(?:(?!\1).)*\1|(?!\$\w*\$)[^;'\"])*?"
    r"\bon\s+commit\s+drop\b)"
)
"""How a statement begins whose temporary table ends with the transaction."""


def outlasting(traces: Sequence[Trace], family: str, template: str) -> list[Trace]:
    """Return those of the *traces* in *template* that outlive the transaction.

    The others are of temporary tables that are created with ON COMMIT DROP. Temporary
    functions, views and sequences have no such clause.
    """
    code = without_comments(family, template)
    rest = re.sub(_ENDS_AT_COMMIT, "create table ", code, flags=_FLAGS)
    lasting = {trace.label for trace in _scan(family, rest)}
    return [trace for trace in traces if trace.label in lasting]


# set_config()


def _is_local(statement: str, parameters: Any) -> bool:
    """Whether each set_config() in *statement* ends with the transaction."""
    calls = list(_CALLS_SET_CONFIG.finditer(statement))
    return bool(calls) and all(
        _is_true(argument, statement, start, parameters)
        for start, argument in (_third_argument(statement, x.end()) for x in calls)
    )


def _third_argument(text: str, start: int) -> tuple[int, str]:
    """The third argument of the call whose arguments begin at *start*, and where."""
    commas = [
        at
        for at, depth, character in _code(text, start)
        if (depth, character) == (0, ",")
    ]
    end = next((at for at, depth, _ in _code(text, start) if depth < 0), len(text))
    inside = [at for at in commas if at < end]
    if len(inside) != 2:
        return end, ""
    return inside[1] + 1, text[inside[1] + 1 : end].strip()


def _code(text: str, start: int) -> Iterator[tuple[int, int, str]]:
    """Yield the characters that are not in a string: position, depth of parentheses."""
    depth, quote = 0, ""
    for at in range(start, len(text)):
        character = text[at]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character == "(") - (character == ")")
            yield at, depth, character


_VALUE = pattern(
    r"(?:cast\s*\(\s*)?(?:'(?P<literal>\w+)'|(?P<word>true)|\$(?P<number>\d+)|"
    r"%\((?P<name>[^)]+)\)s|(?P<next>%s))(?:\s*::\s*\w+|\s+as\s+\w+\s*\))?",
    re.IGNORECASE,
)


def _is_true(argument: str, text: str, start: int, parameters: Any) -> bool:
    match = _VALUE.fullmatch(argument)
    if match is None:
        return False
    value: Any = match["literal"] or match["word"]
    if match["name"] and isinstance(parameters, Mapping):
        value = parameters.get(match["name"])
    elif isinstance(parameters, Sequence) and (match["number"] or match["next"]):
        before = text.count("%s", 0, start)
        index = int(match["number"]) - 1 if match["number"] else before
        value = parameters[index] if index < len(parameters) else None
    return value is True or (isinstance(value, str) and value.lower() in _TRUE)

"""Which statements are known to write, and which are known to read. Pure.

By SQLAlchemy's constructs, and by obvious SQL text. A text is never known to read: it
may call a function that writes. Between the two the database has to be queried: see
`write_evidence`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from .._patterns import pattern
from .sql_text import without_comments, without_strings

__all__ = [
    "controls_transaction",
    "functions_called",
    "known_to_read",
    "known_to_write",
    "text_known_to_write",
]

_READING = {
    *("select", "values", "table", "show", "set", "with", "explain", "declare"),
    *("fetch", "close", "describe", "desc", "pragma", "listen", "unlisten", "reset"),
    *("savepoint", "release", "rollback", "begin", "xa", "start", "commit", "end"),
    *("discard", "deallocate", "analyse", "use", "lock", "unlock", "attach", "detach"),
}
"""Statements that begin so write only what is to be found by `_WRITING`."""

_WRITING = pattern(
    r"\b(insert\s+into|replace\s+into|delete\s+from|merge\s+into|"
    r"update\b.{1,200}?\bset|into\s+(?:outfile|dumpfile)|"
    r"pragma\s+(?:\w+\s*\.\s*)?(?:user_version|application_id)\s*[=(]|"
    r"(?:nextval|setval|pg_notify|lowrite|lo_\w+)\s*\()",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL = pattern(
    r"(?:^|;)\s*(?:begin|start|commit|end|rollback|abort|prepare|xa)\b", re.IGNORECASE
)
_BEGINS = pattern(
    r"set\s+transaction\s[\w\s,]+|xa\s+(?:start|end)\s+'[^']*'", re.IGNORECASE
)
_FIRST_WORD = pattern(r"[\s(]*(\w+)")
_CALL = pattern(r"(\"(?:[^\"]|\"\")+\"|`[^`]+`|[\w$]+)\s*\(")
_NO_FUNCTIONS = {
    # Keywords before a parenthesis.
    *("and", "any", "all", "array", "as", "between", "by", "cast", "distinct", "else"),
    *("except", "exists", "filter", "from", "group", "in", "intersect", "join", "not"),
    *("lateral", "like", "materialized", "on", "or", "over", "select", "some", "then"),
    *("union", "using", "values", "when", "where", "within", "limit", "offset", "is"),
    # Types.
    *("char", "character", "varchar", "nvarchar", "numeric", "decimal", "float"),
    *("timestamp", "time", "binary", "varbinary", "bit", "varying", "interval"),
    # Functions that only compute.
    *("abs", "array_agg", "avg", "ceil", "char_length", "coalesce", "concat", "count"),
    *("cume_dist", "dense_rank", "extract", "first_value", "floor", "greatest"),
    *("group_concat", "ifnull", "lag", "last_value", "lead", "least"),
    *("length", "lower", "ltrim", "max", "min", "mod", "now", "nullif", "percent_rank"),
    *("position", "rank", "replace", "round", "row_number", "rtrim", "string_agg"),
    *("substr", "substring", "sum", "to_char", "trim", "upper"),
    *("array_length", "bool_and", "bool_or", "date_part", "date_trunc", "json_agg"),
    *("json_build_object", "json_extract", "json_object_agg", "jsonb_agg", "ntile"),
    *("jsonb_array_elements", "jsonb_build_object", "jsonb_object_agg", "nth_value"),
    *("percentile_cont", "percentile_disc", "regexp_replace", "row_to_json", "stddev"),
    *("strftime", "to_jsonb", "to_tsvector", "unnest", "variance"),
}
_SAVEPOINTS = {"savepoint", "rollback_to_savepoint", "release_savepoint"}
_LONG = 4000  # such a text is not kept


def known_to_write(context: Any, statement: str) -> bool:
    """Whether *statement* writes, as far as can be seen; `False` means: not known."""
    compiled = context.compiled
    if compiled is None or context.is_text:
        return text_known_to_write(context.dialect.name, statement)
    if context.isinsert or context.isupdate or context.isdelete or context.isddl:
        return True
    ctes = getattr(compiled, "ctes", None)
    return ctes is not None and any(cte.element.is_dml for cte in ctes)


def text_known_to_write(dialect: str, statement: str) -> bool:
    """Whether SQL text obviously writes."""
    scan = _text_writes if len(statement) > _LONG else _known_text_writes
    return scan(dialect, statement)


def known_to_read(context: Any, statement: str) -> bool:
    """Whether a statement is a SELECT of SQLAlchemy's that calls no function.

    But for those that only compute. Savepoints change nothing, and neither does what
    unitwork sends itself when a transaction begins.
    """
    compiled = context.compiled
    if compiled is None or context.is_text:
        return _BEGINS.fullmatch(statement) is not None
    kind = getattr(compiled.statement, "__visit_name__", "")
    if kind in _SAVEPOINTS:
        return True
    if not getattr(compiled.statement, "is_select", False):
        return False
    if known_to_write(context, ""):
        return False
    text = compiled.string
    return not (_calls if len(text) > _LONG else _known_calls)(text)


def controls_transaction(dialect: str, statement: str) -> bool:
    """Whether a text begins or ends transactions by itself."""
    return _CONTROL.search(_bare(dialect, statement)) is not None


def _bare(dialect: str, statement: str) -> str:
    return without_strings(without_comments(dialect, statement)).strip()


def _text_writes(dialect: str, statement: str) -> bool:
    if _begins_to_write(statement):  # no need to read the rest
        return True
    text = _bare(dialect, statement)
    if _WRITING.search(text):
        return True
    return any(_begins_to_write(each) for each in text.split(";"))


def _begins_to_write(statement: str) -> bool:
    word = _FIRST_WORD.match(statement)
    return word is not None and word[1].lower() not in _READING


def _calls(text: str) -> bool:
    """Whether *text*, which SQLAlchemy has made, calls functions that may write."""
    return bool(functions_called(without_strings(text)))


def functions_called(text: str) -> set[str]:
    """The names of the functions in *text* that may do more than compute.

    Without their schema, and in lower case unless quoted. *text* has no strings and no
    comments in it.
    """
    return {_unquoted(name) for name in _CALL.findall(text)} - _NO_FUNCTIONS


def _unquoted(name: str) -> str:
    if name.startswith(('"', "`")):
        return name[1:-1].replace('""', '"')
    return name.lower()


_known_text_writes = lru_cache(maxsize=512)(_text_writes)
_known_calls = lru_cache(maxsize=512)(_calls)

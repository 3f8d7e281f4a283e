"""What libraries say of a fault, in our own words: a user reads none of pydantic, Python's errors, or errno."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

from msekit.errors import brief, shown

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_WANTED = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "none_required": "is to be empty",
    "bool_type": "is to be true or false",
    "bool_parsing": "is to be true or false",
    "int_type": "is to be a whole number",
    "int_parsing": "is to be a whole number",
    "int_from_float": "is to be a whole number",
    "float_type": "is to be a number",
    "float_parsing": "is to be a number",
    "finite_number": "is to be a finite number",
    "string_type": "is to be a text",
    "string_pattern_mismatch": "is to be made of letters, digits, _, - and .",
    "tuple_type": "is to be a list",
    "list_type": "is to be a list",
    "path_type": "is to be a path",
    "dict_type": "is to be a mapping of keys",
    "model_type": "is to be a mapping of keys",
    "model_attributes_type": "is to be a mapping of keys",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_OF_THE_SYSTEM = {
    errno.ENOENT: "there is no such file or folder",
    errno.EACCES: "there is no permission to do so",
    errno.EPERM: "there is no permission to do so",
    errno.EROFS: "the disk cannot be written",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EMFILE: "too many files are open",
    errno.ENAMETOOLONG: "the name is too long",
}


def first_fault(error: ValidationError) -> tuple[ErrorDetails, str, str]:
    """The first fault that pydantic found.

    Returns:
        Its details, the key that it is of (empty for the whole), and both in words: `labels is to be a list, not 3`.
    """
    faults = error.errors()
    first = faults[0]
    where = [str(part) for part in first["loc"] if _is_key(part)]
    alike = [fault for fault in faults if [str(part) for part in fault["loc"] if _is_key(part)] == where]
    key, fault = ".".join(where), first if len(alike) == 1 else _nearest(alike)
    if fault["type"] == "missing" and where and where[-1].isdigit():
        return first, key, f"{'.'.join(where[:-1])} has too few entries"
    what = _what(fault)
    return first, key, what if not key else f"{key}: {what}" if fault["type"] == "value_error" else f"{key} {what}"


def _is_key(part: int | str) -> bool:
    """Whether a part of pydantic's place is a key, and not the name of a type in a union."""
    return isinstance(part, int) or not any(mark in part for mark in "[](),")


def _nearest(faults: list[Any]) -> Any:
    """Of the faults of one value under several types: that of the names that could stand there, else the last."""
    named = [fault for fault in faults if fault["type"] in ("literal_error", "value_error")]
    return named[0] if named else faults[-1]


def _what(fault: Any) -> str:
    kind, context = fault["type"], fault.get("ctx") or {}
    if kind == "value_error":
        said = str(fault["msg"]).removeprefix("Value error, ")
        return said if said.startswith(brief(fault["input"])) else said + _shown(fault["input"])
    value = "" if kind in ("missing", "extra_forbidden") else _shown(fault["input"])
    if kind in _WANTED:
        return _WANTED[kind] + value
    if kind == "literal_error":
        return f"is to be {context.get('expected', 'another')}{value}"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"is to be {words} {context.get(name):g}{value}"
    if kind in ("too_short", "too_long"):
        count = context.get("min_length" if kind == "too_short" else "max_length")
        return f"is to have {count} {'entry' if count == 1 else 'entries'}, not {context.get('actual_length')}"
    return f"cannot be used{value}"


def _shown(value: object) -> str:
    plain = isinstance(value, (str, int, float, list, tuple))
    return "" if not plain else f", not {brief(value)}"


def reason(error: BaseException) -> str:
    """Why something failed, in one line, without the names of Python's exceptions and the system's numbers."""
    if isinstance(error, OSError) and error.errno is not None:
        return _OF_THE_SYSTEM.get(error.errno) or (error.strerror or "the system refuses").lower()
    if isinstance(error, json.JSONDecodeError):
        return f"see line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeError):
        at = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        return f"it is not text in {getattr(error, 'encoding', 'UTF-8')}{at}"
    import yaml  # --help does without

    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"it is not YAML, see line {mark.line + 1}, column {mark.column + 1}"
    if isinstance(error, yaml.YAMLError):
        return "it is not YAML"
    if isinstance(error, KeyError):
        return f"'{error.args[0] if error.args else '?'}' is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (TypeError, AttributeError, IndexError)):
        return "its content is not as it should be"
    return _one_line(str(error)) or "for no reason that was given"


def _one_line(text: str) -> str:
    return shown(next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")[:200])

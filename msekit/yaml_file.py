"""YAML: one parser for every reader, which bounds size, depth and what anchors stand for.

`read_mapping` reads a file that holds a mapping, such as a run file, a profile or a data set's description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from msekit.errors import MsekitError
from msekit.json_file import bounded_bytes
from msekit.words import reason

LARGEST = 1 << 20
"""Bytes of a file: PyYAML takes ten seconds for so many."""
MOST_DEPTH = 64
MOST_NODES = 100_000
"""Values and keys, those that anchors repeat counted as often as they stand there."""
_LONGEST_NUMBER = 1024  # bits of a whole number: a float's range


class _RefusedError(yaml.constructor.ConstructorError):
    """What the file gives that is refused, in words that follow "the file gives"."""


class _Loader(yaml.SafeLoader):
    """Safe, and refuses a key that is given twice: the specification calls it an error, PyYAML takes the last."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._looked_at: set[yaml.MappingNode] = set()
        self._depth = self._nodes = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and count it with all that it stands for: ten anchors of anchors make a file of gigabytes."""
        again, before = self.check_event(yaml.AliasEvent), self._nodes
        self._nodes, self._depth = self._nodes + 1, self._depth + 1
        if self._depth > MOST_DEPTH:
            raise _RefusedError(problem=f"more than {MOST_DEPTH} levels, one in the other")
        node = super().compose_node(parent, index)
        assert node is not None
        self._depth -= 1
        if again:
            if node not in self._sizes:
                raise _RefusedError(problem="an anchor that stands for itself")
            self._nodes += self._sizes[node]
        else:
            self._sizes[node] = self._nodes - before
        if self._nodes > MOST_NODES:
            raise _RefusedError(problem=f"more than {MOST_NODES:,} values, with what anchors stand for")
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what a node merges in (`<<`) beside its own keys, which are compared before: they may give it anew."""
        if node not in self._looked_at:
            self._looked_at.add(node)
            self._check(node)
        super().flatten_mapping(node)
        # what is merged in stands first, and PyYAML takes the first of two where this mapping is merged in again
        last = {k.value if isinstance(k, yaml.ScalarNode) else id(k): (k, value) for k, value in node.value}
        node.value = list(last.values())

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number that a float can be of."""
        number = super().construct_yaml_int(node)
        if number.bit_length() > _LONGEST_NUMBER:
            raise _RefusedError(problem="a number beyond any float")
        return number

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        """A text that can be the name of a file."""
        text = str(self.construct_scalar(node))
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise _RefusedError(problem="half of a surrogate pair, which is no text") from None
        return text

    def _check(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            key, line = str(self.construct_object(key_node)), key_node.start_mark.line + 1
            if key in lines:
                raise _RefusedError(problem=f"'{key}' twice, in line {lines[key]} and in line {line}")
            lines[key] = line


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_yaml_str)


def parse_yaml(text: str) -> Any:
    """What a YAML text says.

    Raises:
        ValueError: It is no YAML, gives a key twice, or is larger, deeper or of longer numbers than any of ours.
    """
    if len(text) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MB")
    try:
        return yaml.load(text, _Loader)
    except _RefusedError as error:
        raise ValueError(f"it gives {error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(reason(error)) from error
    except RecursionError as error:
        raise ValueError(f"it gives more than {MOST_DEPTH} levels, one in the other") from error


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML mapping; keys become text.

    Args:
        path: The file.
        what: The kind of file, for the message: "run file".

    Raises:
        MsekitError: The file is unreadable or not a mapping, gives a key twice, or see `parse_yaml`.
    """
    try:
        raw = parse_yaml(bounded_bytes(path, LARGEST).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        fix = "Save it as UTF-8"
        raise MsekitError(f"the {what} is no UTF-8: {reason(error)}", where=path, fix=fix) from error
    except (OSError, ValueError) as error:
        remedy = "Keep one of them" if " twice, in line" in str(error) else None
        raise MsekitError(f"the {what} cannot be read: {reason(error)}", where=path, fix=remedy) from error
    if not isinstance(raw, dict):
        raise MsekitError(f"the {what} is not a mapping of keys", where=path)
    return {str(key): value for key, value in raw.items()}


def unquoted(value: bool | int | float) -> tuple[str, str]:
    """What YAML took for a number or a truth value that was to be a text: how it reads it, and how to write it."""
    if isinstance(value, bool):
        return str(value).lower(), '"yes", "no", "on", "off", "true", "false"'
    return f"the number {value}", f'"{value}"'

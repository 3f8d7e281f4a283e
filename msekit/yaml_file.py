"""`read_mapping`: a YAML file that holds a mapping, such as a run file, a profile or a data set's description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from msekit.errors import MsekitError
from msekit.words import reason


class _TwiceError(yaml.constructor.ConstructorError):
    """A key is given twice."""


class _Loader(yaml.SafeLoader):
    """Safe, and refuses a key that is given twice: the specification calls it an error, PyYAML takes the last."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._looked_at: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what a node merges in (`<<`) beside its own keys, which are compared before: they may give it anew."""
        if node not in self._looked_at:
            self._looked_at.add(node)
            self._check(node)
        super().flatten_mapping(node)
        # what is merged in stands first, and PyYAML takes the first of two where this mapping is merged in again
        last = {k.value if isinstance(k, yaml.ScalarNode) else id(k): (k, value) for k, value in node.value}
        node.value = list(last.values())

    def _check(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            key, line = str(self.construct_object(key_node)), key_node.start_mark.line + 1
            if key in lines:
                raise _TwiceError(problem=f"'{key}' twice, in line {lines[key]} and in line {line}")
            lines[key] = line


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML mapping; keys become text.

    Args:
        path: The file.
        what: The kind of file, for the message: "run file".

    Raises:
        MsekitError: The file is unreadable or not a mapping, or gives a key twice.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except UnicodeDecodeError as error:
        fix = "Save it as UTF-8"
        raise MsekitError(f"the {what} is no UTF-8: {reason(error)}", where=path, fix=fix) from error
    except _TwiceError as error:
        fix = "Keep one of them"
        raise MsekitError(f"the {what} gives {error.problem}", where=path, fix=fix) from error
    except (OSError, yaml.YAMLError) as error:
        raise MsekitError(f"the {what} cannot be read: {reason(error)}", where=path) from error
    if not isinstance(raw, dict):
        raise MsekitError(f"the {what} is not a mapping of keys", where=path)
    return {str(key): value for key, value in raw.items()}


def unquoted(value: bool | int | float) -> tuple[str, str]:
    """What YAML took for a number or a truth value that was to be a text: how it reads it, and how to write it."""
    if isinstance(value, bool):
        return str(value).lower(), '"yes", "no", "on", "off", "true", "false"'
    return f"the number {value}", f'"{value}"'

"""`read_mapping`: a YAML file that holds a mapping, such as a run file, a profile or a data set's description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from msekit.errors import MsekitError


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML mapping; keys become text.

    Args:
        path: The file.
        what: The kind of file, for the message: "run file".

    Raises:
        MsekitError: The file is unreadable or not a mapping.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise MsekitError(f"the {what} cannot be read: {reason}", where=path) from error
    if not isinstance(raw, dict):
        raise MsekitError(f"the {what} is not a mapping of keys", where=path)
    return {str(key): value for key, value in raw.items()}

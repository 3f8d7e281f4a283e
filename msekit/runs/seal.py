"""A checksum in a run's texts: whoever reads one that is not as msekit wrote it is told so. No torch.

They are plain and may be changed by hand, so a difference is a warning, not an error (tensors are refused:
`runs/tensors.py`). Files of the first runs have no checksum.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_KEY = "checksum"
_COMMENT = f"# {_KEY} "


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A JSON document with the checksum of what it says."""
    return document | {_KEY: _of_document(document)}


def opened(document: dict[str, Any], where: Path) -> dict[str, Any]:
    """The document without its checksum; a warning where it says something else than was written."""
    content = {key: value for key, value in document.items() if key != _KEY}
    if _KEY in document and document[_KEY] != _of_document(content):
        _tell(where)
    return content


def sealed_text(text: str) -> str:
    """A YAML with the checksum of its lines in a comment behind them."""
    return f"{text}{_COMMENT}{digest_of(text.encode())}\n"


def check_text(content: bytes, where: Path) -> None:
    """Warn where the lines before such a comment are not those that were written."""
    text, comment, rest = content.rpartition(_COMMENT.encode())
    if comment and rest.strip().decode("utf-8", "replace") != digest_of(text):
        _tell(where)


def check_digest(content: bytes, written: str | None, where: Path) -> None:
    """Warn where a file is not the one whose digest was written elsewhere; None where none was."""
    if written is not None and digest_of(content) != written:
        _tell(where)


def digest_of(content: bytes) -> str:
    """sha256, in hex."""
    return hashlib.sha256(content).hexdigest()


def _of_document(document: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(document))  # what has another type in memory is the same on disk
    return digest_of(json.dumps(as_read, sort_keys=True).encode())


def _tell(where: Path) -> None:
    _LOG.warning("%s is not as msekit wrote it: it is damaged, or was changed by hand", where)

"""A form's fields. Their texts are UTF-8; starlette takes what is not for Latin-1, or puts marks where letters were."""

from __future__ import annotations

from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from msekit.errors import MsekitError

_MULTIPART, _URLENCODED = b"multipart/form-data", b"application/x-www-form-urlencoded"
_EVERY_BYTE = "latin-1"  # a character for each, and back
_REPLACED = "\ufffd"


class UnreadableError(MsekitError):
    """A body that no browser sends: the page answers it with a failure's status, as the endpoint does."""


async def form_of(request: Request) -> dict[str, Any]:
    """Field → text or file; files that were not chosen are left out.

    Raises:
        MsekitError: The body is no form or too large in some part, a field is given twice, or a text is not UTF-8.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind not in (_MULTIPART, _URLENCODED, b""):
        raise UnreadableError("the body is no form; JSON goes to /api/predict, as application/json")
    if kind == _MULTIPART:
        boundary = b"; boundary=%s" % options[b"boundary"] if b"boundary" in options else b""
        told = b"%s; charset=%s%s" % (kind, _EVERY_BYTE.encode(), boundary)
        others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
        request = Request({**request.scope, "headers": [*others, (b"content-type", told)]}, request.receive)
    try:
        form = await request.form(max_files=3, max_fields=10, max_part_size=1 << 20)
    except HTTPException as error:
        raise UnreadableError(f"the form cannot be read: {error.detail}") from error
    given = [(key, value) for key, value in form.multi_items() if not isinstance(value, UploadFile) or value.filename]
    fields = dict(_in_utf8(key, value, kind == _MULTIPART) for key, value in given)
    if len(fields) < len(given):
        raise MsekitError("a field of the form is given twice")
    return fields


def _in_utf8(key: str, value: Any, by_bytes: bool) -> tuple[str, Any]:
    """A field as it was sent.

    Args:
        key: Its name.
        value: Its text, or a file.
        by_bytes: Whether each of their characters stands for a byte.

    Raises:
        UnreadableError: They are not UTF-8.
    """
    try:
        if by_bytes:
            key = key.encode(_EVERY_BYTE).decode("utf-8")
            value = value.encode(_EVERY_BYTE).decode("utf-8") if isinstance(value, str) else value
    except UnicodeDecodeError as error:
        raise _not_utf8(key, error.start) from error
    if not by_bytes and _REPLACED in f"{key}{value}":
        raise _not_utf8(key, f"{key}{value}".index(_REPLACED))
    return key, value


def _not_utf8(key: str, place: int) -> UnreadableError:
    field = key if key.isascii() else "form"
    return UnreadableError(f"the text of '{field[:20]}' is not UTF-8, see character {place + 1}")

"""A form's fields. Their texts are UTF-8; what is not is refused, where starlette would take it for Latin-1."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from msekit.errors import MsekitError
from msekit.serving.bodies import body_of
from msekit.words import reason

_MOST_FIELDS, _MOST_FILES = 10, 3
_LARGEST_FIELD = 1 << 20  # bytes
_EVERY_BYTE = "latin-1"  # a character for each, and back


class UnreadableError(MsekitError):
    """A body that no browser sends: the page answers it with a failure's status, as the endpoint does."""


async def form_of(request: Request) -> dict[str, Any]:
    """Field → text or file; files that were not chosen are left out.

    Raises:
        MsekitError: The body is no form or too large in some part, a field is given twice, or a text is not UTF-8.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    try:
        if kind == b"application/x-www-form-urlencoded":
            given = await run_in_threadpool(_of_url, await body_of(request))
        elif kind == b"multipart/form-data":
            given = await _of_parts(request, options)
        elif kind:
            raise UnreadableError("the body is no form; JSON goes to /api/predict, as application/json")
        else:
            given = []
    except HTTPException as error:
        raise UnreadableError(f"the form cannot be read: {error.detail}") from error
    except UnicodeDecodeError as error:
        raise UnreadableError(f"the form cannot be read: {reason(error)}") from error
    fields = dict(given)
    if len(fields) < len(given):
        raise MsekitError("a field of the form is given twice")
    return fields


def _of_url(body: bytes) -> list[tuple[str, Any]]:
    """The fields of an urlencoded form; a program may leave letters as they are, in UTF-8."""
    if body.count(b"&") >= _MOST_FIELDS:
        raise UnreadableError(f"the form has more than {_MOST_FIELDS} fields")
    given = parse_qsl(body.decode("utf-8"), keep_blank_values=True, errors="strict")
    if any(len(value) > _LARGEST_FIELD for _, value in given):
        raise UnreadableError(f"a field of the form is larger than {_LARGEST_FIELD >> 20} MB")
    return list(given)


async def _of_parts(request: Request, options: dict[bytes, bytes]) -> list[tuple[str, Any]]:
    """The fields of a form in parts, read byte for byte, which starlette does where it is told that this is Latin-1."""
    boundary = b"; boundary=%s" % options[b"boundary"] if b"boundary" in options else b""
    told = b"multipart/form-data; charset=%s%s" % (_EVERY_BYTE.encode(), boundary)
    others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    told_so = Request({**request.scope, "headers": [*others, (b"content-type", told)]}, request.receive)
    form = await told_so.form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=_LARGEST_FIELD)
    return [
        (_in_utf8(key), _in_utf8(value) if isinstance(value, str) else value)
        for key, value in form.multi_items()
        if not isinstance(value, UploadFile) or value.filename
    ]


def _in_utf8(text: str) -> str:
    return text.encode(_EVERY_BYTE).decode("utf-8")

"""Limits: a middleware that bounds what a client may send, and tells browsers what our pages may do.

A request may be so large and arrive so slowly; it may not come from another site's page, which could not read the
answer and could keep this machine busy all the same.
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 64 << 20
"""Most bytes of a request; a minute of video takes about ten million."""
SLOWEST_BYTES = 16 << 10
"""A body that comes with fewer bytes a second than these is not waited for, ..."""
PATIENCE_S = 20.0
"""... after so long: whoever keeps connections open keeps nobody else waiting."""

_LOG = logging.getLogger(__name__)
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # without one, browsers hide the origin of our own form
    (b"cache-control", b"no-store"),
)


class _TooLargeError(Exception):
    pass


class _TooSlowError(Exception):
    pass


class Limits:
    """Middleware: refuses what another site sends (403), a body that is too large (413) or comes too slowly (408), and
    sets the headers of every answer. A client that hangs up ends its request and nothing else."""

    def __init__(self, app: ASGIApp, largest: int = LARGEST_BODY, patience: float = PATIENCE_S) -> None:
        self.app, self.largest, self.patience = app, largest, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; other kinds of ASGI messages pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        stated = headers.get(b"content-length", b"0")
        received, waited, started, whole = 0, 0.0, False, False
        clock = asyncio.get_running_loop().time

        async def counted() -> Message:
            nonlocal received, waited, whole
            if whole:  # the body is here: what comes now is the client's end, for which there is time
                return await receive()
            since = clock()
            try:
                message = await asyncio.wait_for(receive(), self.patience + received / SLOWEST_BYTES - waited)
            except asyncio.TimeoutError:
                raise _TooSlowError from None
            waited += clock() - since
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self.largest:
                raise _TooLargeError
            return message

        async def marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        refusal: tuple[int, str] | None = None
        try:
            if not stated.isdigit() or len(stated) > len(str(self.largest)) or int(stated) > self.largest:
                raise _TooLargeError
            if scope["method"] not in ("GET", "HEAD") and from_elsewhere(headers):
                refusal = 403, "another site's page asks: only this one's own may"
            else:
                await self.app(scope, counted, marked)
        except _TooLargeError:
            refusal = 413, f"the request is larger than {self.largest >> 20} MB"
        except _TooSlowError:
            refusal = 408, "the request comes too slowly"
        except ClientDisconnect:
            _LOG.debug("a client hung up before it had sent all")
        if refusal is not None and not started:
            status, text = refusal
            closing = {"connection": "close"}  # what it may still send is not read
            await JSONResponse({"error": text}, status_code=status, headers=closing)(scope, receive, marked)


def from_elsewhere(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser says that another site's page makes the request; other clients say nothing of it."""
    if (site := headers.get(b"sec-fetch-site")) is not None:  # a page cannot set it
        return site not in (b"none", b"same-origin")
    origin = headers.get(b"origin")
    return origin is not None and _place(origin) != headers.get(b"host", b"").lower()


def _place(origin: bytes) -> bytes:
    """The host and port of an origin; nothing for `null` and what is none."""
    try:
        return urlsplit(origin.decode("ascii")).netloc.lower().encode()
    except (UnicodeDecodeError, ValueError):
        return b""

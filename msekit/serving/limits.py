"""Limits: a middleware that bounds a request's size as it arrives, and tells browsers what our pages may do."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 64 << 20
"""Most bytes of a request; a minute of video takes about ten million."""

_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class _TooLargeError(Exception):
    pass


class Limits:
    """Middleware: refuses a body above the limit with status 413, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, largest: int = LARGEST_BODY) -> None:
        self.app, self.largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; other kinds of ASGI messages pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        received, started = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.largest:
                raise _TooLargeError
            return message

        async def marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            if not stated.isdigit() or int(stated) > self.largest:
                raise _TooLargeError
            await self.app(scope, counted, marked)
        except _TooLargeError:
            if not started:
                text = f"the request is larger than {self.largest >> 20} MB"
                await JSONResponse({"error": text}, status_code=413)(scope, receive, marked)

"""The HTTP server: an address that is taken is told before anything is loaded, and nobody keeps it busy by being slow.

uvicorn waits without end for a request's first lines; `Patient` drops a connection that has sent none in time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from msekit.errors import MsekitError
from msekit.serving.limits import PATIENCE_S


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds an address; clients wait there until the server is up.

    Args:
        host: Address or name of this machine.
        port: 0 for any that is free.

    Raises:
        MsekitError: The address is taken, or is not this machine's.
    """
    try:
        wanted = socket.AF_INET6 if ":" in host else socket.AF_INET
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, wanted, socket.SOCK_STREAM)[0]
        held = socket.socket(family, kind, protocol)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(address)
            held.listen()
        except OSError:
            held.close()
            raise
        return held
    except OSError as error:
        raise MsekitError(
            f"the address {host}:{port} cannot be used: {error.strerror}",
            fix="Give another --port (0 for any free one).",
        ) from error


class Patient(H11Protocol):
    """uvicorn's connection, which ends where a request's first lines are not whole in time."""

    patience = PATIENCE_S
    """Seconds."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came; between requests uvicorn's own patience counts until there is something of the next."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # the lines are whole: `Limits` counts from here
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.patience, self._drop)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _drop(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server.

    Args:
        app: The site.
        ready: Called once it answers.
    """

    def __init__(self, app: ASGIApp, ready: Callable[[], None]) -> None:
        super().__init__(uvicorn.Config(app, http=Patient, log_level="warning"))
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._ready()

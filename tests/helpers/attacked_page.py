"""The page and its endpoint as a reader (`mutants.py`): forms, uploads and JSON, given to the application itself."""

from __future__ import annotations

import asyncio
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from mutants import Reader, json_mutant, mutated

from msekit.errors import MsekitError
from msekit.inference.host import PlugInHost
from msekit.serving.app import create_app
from msekit.serving.request_queue import RequestQueue

FRAMES = np.linspace(-1, 1, 80, dtype=np.float32).reshape(5, 16)
Request = tuple[str, bytes, bytes]
"""Path, type of content, body."""


def of_the_page(run: Path) -> Reader:
    """Requests to a site with one plug-in; an answer of 500 or more counts as a traceback."""
    forms, documents = _forms(), [{"text": "hello", "audio": FRAMES.tolist()}, {"text": "x", "plug_in": "emotion"}]
    sites: list[Any] = []  # made in the child: a thread does not outlive a fork

    def make(_: Request, rng: random.Random) -> Request:
        kind = rng.randrange(3)
        if kind == 0:
            return "/api/predict", b"application/json", json_mutant(json.dumps(rng.choice(documents)).encode(), rng)
        path = rng.choice(["/", "/api/predict"])
        if kind == 1:
            return path, b"multipart/form-data; boundary=X", mutated(rng.choice(forms), rng)
        return path, b"application/x-www-form-urlencoded", mutated(b"text=hello&plug_in=emotion&sample=3", rng)

    def use(request: Request) -> None:
        if not sites:
            host = PlugInHost("tiny-llama")
            host.add("emotion", run)
            sites.append(create_app(RequestQueue(host), {}))
        status, body = asyncio.run(_answer(sites[0], request))
        assert status < 500, status
        assert b"NaN" not in body or b"NaN" in request[2], "a number that is none"  # a word that was sent may be shown
        if status >= 400 or b'role="alert"' in body:
            raise MsekitError("refused")

    whole = "/api/predict", b"application/json", json.dumps(documents[0]).encode()
    return Reader("page", whole, make, use)


def _forms() -> list[bytes]:
    arrays: dict[bytes, io.BytesIO] = {b"a.npy": io.BytesIO(), b"a.npz": io.BytesIO()}
    np.save(arrays[b"a.npy"], FRAMES)
    np.savez(arrays[b"a.npz"], audio=FRAMES)
    given: list[list[tuple[bytes, bytes, bytes]]] = [
        [(b"text", b"", b"hello"), (b"audio", name, stream.getvalue()), (b"plug_in", b"", b"emotion")]
        for name, stream in arrays.items()
    ]
    given += [[(b"video", b"c.mp4", b"junk"), (b"text", b"", b"x")], [(b"sample", b"", b"3")]]
    return [b"".join(map(_part, parts)) + b"--X--\r\n" for parts in given]


def _part(part: tuple[bytes, bytes, bytes]) -> bytes:
    name, file, content = part
    named = b'; filename="' + file + b'"' if file else b""
    return b'--X\r\nContent-Disposition: form-data; name="' + name + b'"' + named + b"\r\n\r\n" + content + b"\r\n"


async def _answer(site: Any, request: Request) -> tuple[int, bytes]:
    path, kind, body = request
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", kind), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http", "root_path": ""}
    scope |= {"server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2)}
    await site(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)

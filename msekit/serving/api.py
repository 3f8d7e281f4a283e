"""What programs ask beside a prediction: is it alive, what has it done, how is it spoken to.

GET /healthz       {"status": "ok", "plug_ins": […], "waiting": 0}, or 503 once nothing is answered any more
GET /metrics       counters as Prometheus reads them
GET /openapi.json  the endpoints, as OpenAPI 3.1
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from msekit.data.catalogue import MODALITIES
from msekit.serving.request_queue import RequestQueue
from msekit.version import __version__

MOST_SAMPLES = 64
"""In one request; a client with more sends several."""


@dataclass
class Counters:
    """What /api/predict has done since the start; touched by the event loop's thread alone."""

    since: float = field(default_factory=time.time)
    requests: Counter[int] = field(default_factory=Counter)
    """Status → answers."""
    samples: int = 0
    seconds: float = 0.0
    """From a request's arrival to its answer, summed."""

    def add(self, status: int, samples: int, seconds: float) -> None:
        """One answer."""
        self.requests[status] += 1
        self.samples += samples
        self.seconds += seconds


class Monitor:
    """The handlers of the endpoints above.

    Args:
        queue: The queue in front of the plug-ins.
    """

    def __init__(self, queue: RequestQueue) -> None:
        self.queue, self.counters = queue, Counters()

    async def health(self, _: Request) -> Response:
        """Whether requests are answered."""
        alive = self.queue.alive
        content = {
            "status": "ok" if alive else "closed",
            "plug_ins": self.queue.host.names,
            "waiting": self.queue.waiting,
        }
        return JSONResponse(content, status_code=200 if alive else 503)

    async def metrics(self, _: Request) -> Response:
        """The counters."""
        counters = self.counters
        lines = ["# TYPE msekit_requests_total counter"]
        lines += [
            f'msekit_requests_total{{status="{code}"}} {count}' for code, count in sorted(counters.requests.items())
        ]
        lines += ["# TYPE msekit_samples_total counter", f"msekit_samples_total {counters.samples}"]
        lines += ["# TYPE msekit_request_seconds_total counter", f"msekit_request_seconds_total {counters.seconds:.6f}"]
        lines += ["# TYPE msekit_waiting_samples gauge", f"msekit_waiting_samples {self.queue.waiting}"]
        lines += ["# TYPE msekit_start_time_seconds gauge", f"msekit_start_time_seconds {counters.since:.3f}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        """The endpoints."""
        return JSONResponse(description_of_the_api())


def description_of_the_api() -> dict[str, Any]:
    """OpenAPI 3.1."""
    frames = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    said = {"type": "array", "items": {"type": "array", "prefixItems": [{"type": ["string", "null"]}, _TEXT]}}
    sample = {"text": _TEXT, **dict.fromkeys(MODALITIES, frames), "history": said, "speaker": _TEXT}
    several = {"type": "array", "maxItems": MOST_SAMPLES, "items": {"type": "object", "properties": sample}}
    asked = {**sample, "plug_in": _TEXT, "sample": _TEXT, "withheld": {"type": "boolean"}, "samples": several}
    shares = {"type": "object", "additionalProperties": {"type": "number"}}
    notes = {"type": "array", "items": _TEXT}
    # of several targets both are objects by target, and the answer of one with labels a list of those that hold
    of_targets = {"type": "object", "additionalProperties": {"type": ["string", "number", "array"]}}
    of_all = {"type": "object", "additionalProperties": shares}
    answer = {"anyOf": [{"type": ["string", "number"]}, of_targets]}
    prediction = {"prediction": answer, "scores": {"anyOf": [shares, of_all]}, "notes": notes}
    seconds = {"type": "object", "additionalProperties": {"type": "number"}}
    answered = {
        "plug_in": _TEXT,
        **prediction,
        "seconds": seconds,
        "without": {"type": "object", "additionalProperties": {"type": "object", "properties": prediction}},
        "answers": {"type": "array", "items": {"type": "object", "properties": prediction}},
    }
    body = {"content": {"application/json": {"schema": {"type": "object", "properties": asked}}}}
    answers = {
        "200": _json("the prediction; of `samples`, `answers` in their order", answered),
        "400": _json("what is wrong with the request", {"error": _TEXT}),
        "503": _json("too many wait: try again in a moment", {"error": _TEXT}),
    }
    plain = {"200": {"description": "see the description of this API"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "msekit", "version": __version__},
        "paths": {
            "/api/predict": {"post": {"summary": "Predict", "requestBody": body, "responses": answers}},
            "/api/plug-ins": {"get": {"summary": "What each plug-in reads and answers", "responses": plain}},
            "/healthz": {"get": {"summary": "Whether requests are answered", "responses": plain}},
            "/metrics": {"get": {"summary": "Counters for Prometheus", "responses": plain}},
        },
    }


_TEXT: dict[str, Any] = {"type": "string"}


def _json(what: str, properties: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object", "properties": properties}}}
    return {"description": what, "content": content}

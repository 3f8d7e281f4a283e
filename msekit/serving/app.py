"""The web application: a local page and a JSON endpoint.

    GET  /              the page: a plug-in, a text, files or a sample of a data set
    POST /              the same page with the answer, and the answer with each modality withheld
    GET  /api/plug-ins  the plug-ins, with what each reads and answers
    POST /api/predict   {"text", "plug_in"?, "audio"?, "vision"?, "history"?, "speaker"?} as JSON (features as nested
                        lists) or the page's form; with "withheld" also without each modality; several as "samples"
    GET  /healthz, /metrics, /openapi.json  see `api.py`

Uploads go into a folder that is removed with the request, under names of our own; nothing in them is executed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from msekit.data.catalogue import MODALITIES
from msekit.errors import MsekitError, nearest
from msekit.inference.samples import Prepared, prepare_sample
from msekit.serving.answer import Answer, targets_of
from msekit.serving.api import MOST_SAMPLES, Monitor
from msekit.serving.bodies import OF_A_SAMPLE, body_of, fields_of, heard, history_of, refuse_all_but_a_sample
from msekit.serving.forms import UnreadableError, form_of
from msekit.serving.limits import LARGEST_BODY, Limits
from msekit.serving.request_queue import BusyError, RequestQueue
from msekit.serving.shelf import Shelf
from msekit.serving.uploads import features_of_upload, folder_for_uploads, refuse_other_fields

_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
_AT_ONCE = 4  # uploads that are turned into features at the same time


class Site:
    """The handlers of all requests.

    Args:
        queue: The queue in front of the plug-ins.
        shelves: Plug-in → samples to pick from.
        read_only: Whether those samples are all that is answered.
    """

    def __init__(self, queue: RequestQueue, shelves: Mapping[str, Shelf], read_only: bool = False) -> None:
        self.queue, self.shelves, self.read_only = queue, shelves, read_only
        self.page = Jinja2Templates(Path(__file__).parent)
        self.gate = asyncio.Semaphore(_AT_ONCE)
        self.monitor = Monitor(queue)

    async def show(self, request: Request) -> Response:
        """The empty page."""
        chosen = request.query_params.get("plug_in", "")
        return self._page(request, chosen if chosen in self.queue.host.names else self.queue.host.names[0])

    async def ask(self, request: Request) -> Response:
        """The page with an answer, or with a message about what is wrong with the request."""
        names = self.queue.host.names
        form: dict[str, Any] = {}
        try:
            form = await form_of(request)
            answer = await self.answer(form, withheld=True)
        except MsekitError as error:
            chosen = form.get("plug_in") if form.get("plug_in") in names else names[0]
            # a page with a message is no failure to a browser
            status = _status(error) if isinstance(error, (BusyError, UnreadableError)) else 200
            return self._page(request, str(chosen), form, error=str(error), status=status)
        return self._page(request, answer.plug_in, form, answer=answer)

    async def predict(self, request: Request) -> Response:
        """The JSON endpoint."""
        start, count = time.perf_counter(), 0
        try:
            if request.headers.get("content-type", "").startswith("application/json"):
                body = await body_of(request)
                async with self.gate:
                    fields = await run_in_threadpool(fields_of, body)
            else:
                fields = await form_of(request)
            answers = await self.answers(fields)
            count, several = len(answers), fields.get("samples") is not None
            response = JSONResponse({"answers": answers} if several else answers[0])
        except MsekitError as error:
            response = JSONResponse({"error": str(error)}, status_code=_status(error))
        self.monitor.counters.add(response.status_code, count, time.perf_counter() - start)
        return response

    async def answers(self, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The JSON answers of a sample, or of each of `samples`, which go through the queue together.

        Raises:
            MsekitError: The fields cannot be used.
            BusyError: The queue is full.
        """
        withheld, samples = bool(fields.get("withheld")), fields.get("samples")
        if samples is None:
            return [(await self.answer(fields, withheld)).record()]
        if not isinstance(samples, list) or not 0 < len(samples) <= MOST_SAMPLES:
            raise MsekitError(f"'samples' is no list of 1 to {MOST_SAMPLES} samples")
        if stray := sorted(fields.keys() & {*OF_A_SAMPLE, "sample"}):
            raise MsekitError(f"'{stray[0]}' stands beside 'samples'", fix="Put it into a sample.")
        for place, sample in enumerate(samples):
            if not isinstance(sample, dict) or sample.keys() - set(OF_A_SAMPLE):
                raise MsekitError(f"sample {place} is no object of {', '.join(OF_A_SAMPLE)}")
        plug_in = {"plug_in": fields.get("plug_in")}
        done = await asyncio.gather(
            *(self.answer({**sample, **plug_in}, withheld) for sample in samples), return_exceptions=True
        )
        for place, answer in enumerate(done):
            if isinstance(answer, MsekitError) and not isinstance(answer, BusyError):
                raise MsekitError(f"sample {place}: {answer.what}", fix=answer.fix) from answer
            if isinstance(answer, BaseException):
                raise answer
        return [answer.record() for answer in done if isinstance(answer, Answer)]

    async def plug_ins(self, _: Request) -> Response:
        """All plug-ins, with what each reads and answers."""
        return JSONResponse([self._described(name) for name in self.queue.host.names])

    def _described(self, name: str) -> dict[str, Any]:
        described = self.queue.host.plug_in(name).description
        shelf = self.shelves.get(name)
        return {
            "name": name,
            "task": described.dataset.task,
            "labels": described.labels,
            "language": described.dataset.language,
            "widths": dict(described.widths),
            "clips": sorted(set(described.dataset.extractors) & set(MODALITIES)),
            "hears": "text" in described.dataset.extractors,
            "context": described.context,
            "estimate": described.estimate,
            "samples": len(shelf) if shelf else 0,
            "read_only": self.read_only,
        }

    async def answer(self, fields: Mapping[str, Any], withheld: bool) -> Answer:
        """Predict the sample of a form or a JSON object, and without each modality where that is asked for.

        Raises:
            MsekitError: The fields cannot be used.
            BusyError: The queue is full.
        """
        if any(isinstance(fields.get(key), str) for key in MODALITIES):  # a text would be a path on this machine
            raise MsekitError("features are nested lists or uploaded files here")
        refuse_other_fields(key for key, value in fields.items() if isinstance(value, UploadFile))
        if self.read_only:
            refuse_all_but_a_sample(fields)
        names = self.queue.host.names
        name = str(fields.get("plug_in") or names[0])
        if name not in names:
            raise MsekitError(f"no plug-in named '{name:.80}'", fix=nearest(name[:80], names))
        async with self.gate:
            variants = await run_in_threadpool(self._variants, name, fields, withheld)
        predictions = await asyncio.wrap_future(self.queue.submit(name, list(variants.values())))
        full, *others = predictions
        return Answer(name, full, variants[""].text, dict(zip(list(variants)[1:], others, strict=True)))

    def _variants(self, name: str, fields: Mapping[str, Any], withheld: bool) -> dict[str, Prepared]:
        """The whole sample, under "", then the sample with each modality withheld, if that is asked for."""
        description = self.queue.host.plug_in(name).description
        text, features = fields.get("text") or "", {key: fields.get(key) for key in MODALITIES}
        said = {"history": history_of(fields.get("history")), "speaker": fields.get("speaker")}
        if fields.get("sample"):
            text, features, dialogue = self._from_shelf(name, str(fields["sample"]), description.context)
            said = {key: said[key] or dialogue[key] for key in said}
        with folder_for_uploads() as folder:
            uploads = {key: value for key, value in fields.items() if isinstance(value, UploadFile)}
            for key, upload in uploads.items():
                features.pop(key, None)
                features |= {
                    modality: value
                    for modality, value in features_of_upload(key, upload, description, folder).items()
                    if modality not in uploads or modality == key
                }
            if not str(text).strip() and uploads:
                text = heard(Path(folder), description)
            if not str(text).strip() and all(features.get(key) is None for key in MODALITIES):
                raise MsekitError("there is nothing to read: type a text, or add a file")
            full = prepare_sample(description, "full", text, features, **said)
        if not withheld:
            return {"": full}
        present = [key for key in MODALITIES if len(getattr(full, key))]
        hidden = [(key,) for key in present] + ([tuple(present)] if len(present) > 1 else [])
        variants = {"": full}
        for keys in hidden:
            kept = {key: getattr(full, key) for key in present if key not in keys}
            variants[" and ".join(keys)] = prepare_sample(description, "without", text, kept, **said)
        return variants

    def _from_shelf(self, name: str, number: str, context: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Text, features and dialogue of a sample to pick from."""
        shelf = self.shelves.get(name)
        if shelf is None or not _NUMBER.fullmatch(number) or int(number) >= len(shelf):
            raise MsekitError(f"no sample '{number[:20]}' to pick")
        index = int(number)
        return shelf.table.texts[index], shelf.given(index), shelf.said(index, context)

    def _page(
        self,
        request: Request,
        chosen: str,
        form: Mapping[str, Any] | None = None,
        answer: Answer | None = None,
        error: str | None = None,
        status: int = 200,
    ) -> HTMLResponse:
        shelf = self.shelves.get(chosen)
        sample = str((form or {}).get("sample") or "")
        context = {
            "plug_ins": [self._described(name) for name in self.queue.host.names],
            "chosen": chosen,
            "described": self._described(chosen),
            "shelf": [shelf.title(index) for index in range(len(shelf))] if shelf else [],
            "sample": sample,
            "truth": shelf.truth(int(sample)) if shelf and answer and sample else None,
            "text": (form or {}).get("text") or "",
            "answer": answer,
            "read": answer.text if answer and (sample or answer.text != ((form or {}).get("text") or "")) else None,
            "history": (form or {}).get("history") or "",
            "speaker": (form or {}).get("speaker") or "",
            "targets": targets_of(answer),
            "error": error,
            "limit": LARGEST_BODY >> 20,
        }
        return self.page.TemplateResponse(request, "page.html", context, status_code=status)


def _status(error: MsekitError) -> int:
    return 503 if isinstance(error, BusyError) else 400


def create_app(
    queue: RequestQueue, shelves: Mapping[str, Shelf], hosts: list[str] | None = None, read_only: bool = False
) -> Starlette:
    """The site as an ASGI application.

    Args:
        queue: The queue in front of the plug-ins.
        shelves: Plug-in → samples to pick from.
        hosts: Host names that a browser may use for it; None for loopback's.
        read_only: Whether those samples are all that is answered: nothing typed, recorded or uploaded is read.
    """
    site = Site(queue, shelves, read_only)
    loopback = ["localhost", "127.0.0.1", "[::1]"]
    return Starlette(
        routes=[
            Route("/", site.show, methods=["GET"]),
            Route("/", site.ask, methods=["POST"]),
            Route("/api/plug-ins", site.plug_ins, methods=["GET"]),
            Route("/api/predict", site.predict, methods=["POST"]),
            Route("/healthz", site.monitor.health, methods=["GET"]),
            Route("/metrics", site.monitor.metrics, methods=["GET"]),
            Route("/openapi.json", site.monitor.openapi, methods=["GET"]),
        ],
        middleware=[Middleware(Limits), Middleware(TrustedHostMiddleware, allowed_hosts=hosts or loopback)],
    )

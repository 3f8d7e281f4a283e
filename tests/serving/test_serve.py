"""A real server, real clients: the page, the endpoint, what is refused, and fifty at once."""

from __future__ import annotations

import http.client
import io
import json
import pickle
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra msekit[serve] is not installed")
pytest.importorskip("starlette", reason="the extra msekit[serve] is not installed")

import uvicorn

from msekit.data.readers.published import Row
from msekit.errors import MsekitError
from msekit.inference.host import PlugInHost
from msekit.inference.samples import prepare_sample
from msekit.reporter import Reporter
from msekit.serving.app import create_app
from msekit.serving.limits import LARGEST_BODY
from msekit.serving.request_queue import BusyError, RequestQueue
from msekit.serving.shelf import shelf_of


class Client:
    """Talks to the server under test."""

    def __init__(self, port: int, host: PlugInHost) -> None:
        self.port, self.host = port, host

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def json(self, fields: object) -> tuple[int, dict]:
        status, text = self.ask(
            "POST", "/api/predict", json.dumps(fields).encode(), {"content-type": "application/json"}
        )
        return status, json.loads(text)

    def form(
        self, path: str, fields: dict[str, str], files: dict[str, tuple[str, bytes]] | None = None
    ) -> tuple[int, str]:
        mark = uuid.uuid4().hex
        parts = [
            f'--{mark}\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        for key, (name, content) in (files or {}).items():
            head = f'--{mark}\r\ncontent-disposition: form-data; name="{key}"; filename="{name}"\r\n\r\n'
            parts.append(head.encode() + content + b"\r\n")
        body = b"".join([*parts, f"--{mark}--\r\n".encode()])
        return self.ask("POST", path, body, {"content-type": f"multipart/form-data; boundary={mark}"})


@pytest.fixture(scope="module")
def client(erc_run: Path, msa_run: Path) -> Iterator[Client]:
    host = PlugInHost("tiny-llama")
    host.add("emotion", erc_run)
    host.add("sentiment", msa_run)
    queue = RequestQueue(host)
    quiet = Reporter(quiet=True)
    shelves = {"emotion": shelf_of(erc_run, None, None, quiet), "sentiment": shelf_of(msa_run, None, None, quiet)}
    assert all(shelves.values())
    server = uvicorn.Server(uvicorn.Config(create_app(queue, shelves), port=0, log_level="warning"))
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield Client(socket.getsockname()[1], host)
    server.should_exit = True
    thread.join()
    queue.close()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_the_endpoint_answers_as_the_plug_in_and_withholds_each_modality(client: Client, erc_rows: list[Row]) -> None:
    row = erc_rows[0]
    fields = {"text": row.text, "audio": row.audio.tolist(), "vision": row.vision.tolist()}
    status, answer = client.json(fields | {"withheld": True})
    assert status == 200
    alone = client.host.predict("emotion", row.text, row.audio, row.vision)
    assert answer["prediction"] == alone.prediction
    assert answer["scores"] == pytest.approx(alone.scores, abs=1e-5)
    assert list(answer["without"]) == ["audio", "vision", "audio and vision"]
    deaf = client.host.predict("emotion", row.text, None, row.vision)
    assert answer["without"]["audio"]["scores"] == pytest.approx(deaf.scores, abs=1e-5)
    status, lean = client.json(fields)
    assert (status, "without" in lean) == (200, False)
    assert lean["scores"] == pytest.approx(alone.scores, abs=1e-5)


def test_uploads_give_the_same_as_arrays(client: Client, erc_rows: list[Row]) -> None:
    row = erc_rows[1]
    files = {"audio": ("sound.npy", npy(row.audio)), "vision": ("v.npy", npy(row.vision))}
    status, text = client.form("/api/predict", {"text": row.text, "plug_in": "emotion"}, files)
    assert status == 200
    alone = client.host.predict("emotion", row.text, row.audio, row.vision)
    assert json.loads(text)["scores"] == pytest.approx(alone.scores, abs=1e-5)


def test_the_page_shows_a_sample_of_the_data_set(client: Client) -> None:
    status, page = client.ask("GET", "/?plug_in=sentiment")
    assert status == 200
    assert 'aria-current="page">sentiment' in page
    status, page = client.form("/", {"plug_in": "sentiment", "text": "", "sample": "3"})
    assert status == 200
    assert "the data set says" in page
    assert page.count("<section>") == 4
    assert page.count("<dt>") == 4 * 13  # the grid of intensities in a dozen ranges


def test_what_is_typed_is_shown_as_text(client: Client) -> None:
    status, page = client.form("/", {"plug_in": "emotion", "text": "<script>alert(1)</script>", "sample": ""})
    assert status == 200
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_bad_questions_are_a_message_each(client: Client, erc_rows: list[Row]) -> None:
    width = erc_rows[0].audio.shape[1]
    for fields, complaint in (
        ({}, "nothing to read"),
        ({"text": "a", "plug_in": "emotoin"}, "Did you mean emotion"),
        ({"text": "a", "colour": 1}, "unknown key 'colour'"),
        ({"text": 3}, "not a text"),
        ({"text": "a", "audio": "/etc/passwd"}, "nested lists"),
        ({"text": "a", "audio": [[1.0, 2.0], [3.0]]}, "audio"),
        ({"text": "a", "audio": [[float("nan")] * width]}, "no finite number"),
        ({"text": "a", "sample": "99999"}, "no sample"),
        ([1, 2], "not a JSON object"),
    ):
        status, answer = client.json(fields)
        assert status == 400, fields
        assert complaint in answer["error"], answer
    status, text = client.form("/api/predict", {"text": "a", "audio": "/etc/hostname.npy"})
    assert (status, "nested lists" in text) == (400, True)
    status, text = client.ask("POST", "/api/predict", b"{", {"content-type": "application/json"})
    assert (status, "not JSON" in text) == (400, True)
    payload = pickle.dumps({"a": np.zeros(3)})
    for name, content, complaint in (
        ("a.npy", payload, "which were not executed"),
        ("../../etc/cron.npy", npy(erc_rows[0].audio), "holds no path"),
        ("..\\a.npy", npy(erc_rows[0].audio), "holds no path"),
        ("/tmp/a.npy", npy(erc_rows[0].audio), "holds no path"),
        ("a.exe", b"MZ", "cannot be read"),
        ("a.npz", b"PK\x03\x04junk", "cannot be read"),
        ("a.npy", npy(np.zeros((4, width + 1), np.float32)), "features per frame"),
        ("a.npy", npy(np.zeros((0, width), np.float32)), "no frames"),
    ):
        status, text = client.form("/api/predict", {"text": "a"}, {"audio": (name, content)})
        assert status == 400
        assert complaint in text, text
        status, page = client.form("/", {"text": "a", "plug_in": "emotion"}, {"audio": (name, content)})
        assert status == 200
        assert 'role="alert"' in page
        assert "Traceback" not in page


def test_too_large_and_foreign_requests_are_refused(client: Client) -> None:
    headers = {"content-type": "application/json", "content-length": str(LARGEST_BODY + 1)}
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    connection.request("POST", "/api/predict", b"", headers)
    assert connection.getresponse().status == 413
    status, text = client.form("/api/predict", {"text": "x" * (2 << 20)})
    assert status == 400
    assert "form cannot be read" in text
    status, _ = client.ask("GET", "/", headers={"host": "evil.example"})
    assert status == 400
    assert client.ask("GET", "/nowhere")[0] == 404


def test_a_body_without_a_stated_length_is_counted(client: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)

    def endless() -> Iterator[bytes]:
        for _ in range(LARGEST_BODY // (1 << 20) + 2):
            yield b"x" * (1 << 20)

    try:
        connection.request("POST", "/api/predict", endless(), {"content-type": "application/json"}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # cut off before it had sent all: refused as well
    assert client.ask("GET", "/")[0] == 200


@pytest.mark.slow
def test_fifty_clients_lose_nothing(client: Client, erc_rows: list[Row]) -> None:
    rows = erc_rows[:50]
    alone = client.host.predict(
        "emotion", [row.text for row in rows], [r.audio for r in rows], [r.vision for r in rows]
    )

    def ask(row: Row) -> tuple[int, dict]:
        return client.json({"text": row.text, "audio": row.audio.tolist(), "vision": row.vision.tolist()})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, rows))
    assert [status for status, _ in answers] == [200] * 50
    for (_, answer), expected in zip(answers, alone, strict=True):
        assert answer["scores"] == pytest.approx(expected.scores, abs=1e-5)


def test_a_full_queue_says_so_and_a_failure_reaches_its_client(client: Client) -> None:
    queue = RequestQueue(client.host, longest=2)
    sample = prepare_sample(client.host.plug_in("emotion").description, "a", "well", {})
    with client.host.backbone.lock:  # nothing is computed meanwhile
        answers = [queue.submit("emotion", [sample])]
        while queue.waiting:  # the thread has taken it
            time.sleep(0.01)
        answers += [queue.submit("emotion", [sample]) for _ in range(2)]
        with pytest.raises(BusyError):
            queue.submit("emotion", [sample])
    assert all(answer.result(60)[0].id == "a" for answer in answers)
    with client.host.backbone.lock:
        awaited, given_up = (queue.submit("emotion", [sample]) for _ in range(2))
        while queue.waiting > 1:
            time.sleep(0.01)
        given_up.cancel()
    assert awaited.result(60)
    with pytest.raises(MsekitError, match="no plug-in named"):
        queue.submit("nobody", [sample]).result(60)
    queue.close()
    with pytest.raises(BusyError):
        queue.submit("emotion", [sample])

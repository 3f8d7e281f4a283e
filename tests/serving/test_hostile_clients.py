"""Other sites' pages, slow clients, broken uploads and broken adapters: refused or dropped, and nobody else waits."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("uvicorn", reason="the extra msekit[serve] is not installed")
pytest.importorskip("starlette", reason="the extra msekit[serve] is not installed")

from safetensors.torch import load_file, save_file

from msekit.backbones.backbone import Backbone
from msekit.errors import MsekitError
from msekit.inference.host import PlugInHost
from msekit.inference.restore import read_plug_in
from msekit.inference.samples import prepare_sample
from msekit.serving import limits, uploads
from msekit.serving.app import create_app
from msekit.serving.request_queue import RequestQueue
from msekit.serving.server import Patient, Server, bound
from msekit.serving.uploads import folder_for_uploads, remove_leftovers

MULTIPART = "multipart/form-data; boundary=X"
PATIENCE = 0.6
"""Seconds, in these tests."""


@pytest.fixture(scope="module")
def port(erc_run: Path) -> Iterator[int]:
    host = PlugInHost("tiny-llama")
    host.add("emotion", erc_run)
    queue = RequestQueue(host)
    held, ready = bound("127.0.0.1", 0), threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits.Limits.__init__, "__defaults__", (limits.LARGEST_BODY, PATIENCE))
        patch.setattr(Patient, "patience", PATIENCE)
        server = Server(create_app(queue, {}), ready.set)
        thread = threading.Thread(target=server.run, args=([held],))
        thread.start()
        assert ready.wait(20), "it says so once it answers"
        yield held.getsockname()[1]
        server.should_exit = True
        thread.join()
    queue.close()


def ask(port: int, body: bytes, headers: dict[str, str], path: str = "/api/predict") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), {key.lower(): value for key, value in answer.getheaders()}


JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_only_our_own_page_may_ask(port: int) -> None:
    own = f"http://127.0.0.1:{port}"
    for headers, allowed in (
        ({}, True),  # no browser
        ({"origin": own}, True),
        ({"origin": own, "sec-fetch-site": "same-origin"}, True),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://[oops"}, False),
        ({"origin": f"http://127.0.0.1:{port + 1}"}, False),
        ({"origin": own, "sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ):
        for kind, body in ((JSON, b'{"text": "hi"}'), (FORM, b"text=hi"), ({"content-type": "text/plain"}, b"text=hi")):
            for path in ("/", "/api/predict"):
                status, text, _ = ask(port, body, kind | headers, path)
                assert (status == 403) != allowed, (headers, path, text)


def test_browsers_are_told_what_our_pages_may_do(port: int) -> None:
    _, _, headers = ask(port, b'{"text": "hi"}', JSON)
    policy = headers["content-security-policy"]
    assert all(part in policy for part in ("frame-ancestors 'none'", "base-uri 'none'", "default-src 'none'"))
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin", "without a referrer our own form's origin is null"


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"sample": "1" * 5000}),
        json.dumps({"sample": "\u0663"}),
        json.dumps({"sample": "²"}),
        '{"text": "a", "plug_in": "\\ud800"}',
        '{"text": "a", "\\ud800": 1}',
        '{"sample": "\\ud800"}',
        '{"text": "\\udfff"}',
        '{"text": "a", "text": "b"}',
        '{"text": "a", "audio": [[' + "9" * 5000 + "]]}",
        '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"text": "a", "audio": ' + "[" * 900 + "1" + "]" * 900 + "}",
        '{"text": "a", "audio": {"a": 1}}',
        '{"text": "a", "plug_in": {"a": 1}}',
        '{"text": "a", "plug_in": "' + "x" * 100_000 + '"}',
        "\xff",
    ],
)
def test_broken_bodies_are_a_message(port: int, body: str) -> None:
    status, text, _ = ask(port, body.encode("latin1", "ignore"), JSON)
    assert status == 400
    assert len(json.loads(text)["error"]) < 1000
    status, _, _ = ask(port, b"text=&sample=" + b"1" * 5000, FORM, "/")
    assert status == 200


def test_two_files_in_one_field_are_refused(port: int) -> None:
    part = b'--X\r\nContent-Disposition: form-data; name="audio"; filename="a.npy"\r\n\r\nx\r\n'
    status, text, _ = ask(port, part * 2 + b"--X--\r\n", {"content-type": "multipart/form-data; boundary=X"})
    assert (status, "given twice" in text) == (400, True)


@pytest.mark.parametrize("field", ["plug_in", "sample", "text", "history"])
def test_a_file_where_a_word_belongs_is_refused(port: int, field: str) -> None:
    part = f'--X\r\nContent-Disposition: form-data; name="{field}"; filename="a.npy"\r\n\r\nx\r\n--X--\r\n'
    status, text, _ = ask(port, part.encode(), {"content-type": "multipart/form-data; boundary=X"})
    assert status == 400
    assert json.loads(text)["error"].startswith(f"no field '{field}' for files")


def test_a_large_body_delays_nobody(port: int) -> None:
    lists = b'{"text": "a", "audio": [' + b"[]," * 4_000_000 + b"[]]}"
    numbers = b'{"text": "a", "audio": [[' + b"0.125," * 2_000_000 + b"1]]}"
    for body in (lists, numbers, lists * 2):
        waits: list[float] = []
        sender = threading.Thread(target=ask, args=(port, body, JSON))
        sender.start()
        while sender.is_alive():
            started = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/api/plug-ins")
            assert connection.getresponse().status == 200
            waits.append(time.monotonic() - started)
        assert waits
        assert max(waits) < 3, "a busy machine; it was 27 s"


def test_slow_clients_are_dropped(port: int) -> None:
    head = b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    whole = head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    clients = []
    for begun in (b"", b"GET / HT", head, whole, whole + b"{"):
        for _ in range(6):
            client = socket.create_connection(("127.0.0.1", port), timeout=30)
            client.sendall(begun)
            clients.append(client)
    assert ask(port, b'{"text": "hi"}', JSON)[0] == 200, "others are answered meanwhile"
    started = time.monotonic()
    for client in clients:
        answer = b""
        while part := client.recv(4096):
            answer += part
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
        client.close()
    assert time.monotonic() - started < 20 * PATIENCE


def test_a_client_that_sends_a_byte_now_and_then_is_dropped_too(port: int) -> None:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    started = time.monotonic()
    while time.monotonic() - started < 30:
        try:
            client.sendall(b"G")
        except OSError:
            break
        time.sleep(0.1)
    assert time.monotonic() - started < 20 * PATIENCE


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def test_whoever_hangs_up_leaves_no_traceback(port: int) -> None:
    said = _Said()
    logging.getLogger("uvicorn.error").addHandler(said)
    for _ in range(10):
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        time.sleep(0.02)
        client.close()
    assert ask(port, b'{"text": "hi"}', JSON)[0] == 200
    logging.getLogger("uvicorn.error").removeHandler(said)
    assert said.lines == []


class _PanicError(BaseException):
    """As pyo3's PanicException."""


def test_a_panic_ends_a_request_and_not_the_worker(
    erc_run: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = PlugInHost(tiny)
    plug_in = host.add("emotion", erc_run)
    queue, sample = RequestQueue(host), prepare_sample(plug_in.description, "a", "well", {})

    def panics(*_: object, **__: object) -> None:
        raise _PanicError("it took too long")

    with monkeypatch.context() as patch:
        patch.setattr(type(plug_in), "_collator", panics)
        with pytest.raises(RuntimeError, match="too long"):
            queue.submit("emotion", [sample]).result(30)
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny.tokenizer), "__call__", panics)
        with pytest.raises(MsekitError, match="the tokenizer cannot read"):
            queue.submit("emotion", [sample]).result(30)
    assert queue.submit("emotion", [sample]).result(30)[0].id == "a"
    queue.close()


def test_an_adapter_that_gives_no_numbers_gives_no_answer(erc_run: Path, tiny: Backbone, tmp_path: Path) -> None:
    for name in ("adapter.json", "config.yaml"):
        (tmp_path / name).write_bytes((erc_run / name).read_bytes())
    tensors = load_file(erc_run / "adapter.safetensors")
    save_file({name: tensor.fill_(3e38) for name, tensor in tensors.items()}, tmp_path / "adapter.safetensors")
    plug_in = read_plug_in(tmp_path, tiny)
    width = plug_in.description.widths["audio"]
    for answer in (plug_in.predict, plug_in.write):
        with pytest.raises(MsekitError, match="no numbers"):
            answer("hi", audio=[[0.5] * width] * 3)


def test_a_taken_address_is_told_at_once() -> None:
    with bound("127.0.0.1", 0) as held, pytest.raises(MsekitError, match=r"cannot be used.*in use"):
        bound("127.0.0.1", held.getsockname()[1])
    with pytest.raises(MsekitError, match="cannot be used"):
        bound("192.0.2.1", 0)


def test_uploads_of_a_killed_server_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads.tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / "msekit-upload-4194305-x"  # no process has such a number
    (dead / "face").mkdir(parents=True)
    (tmp_path / "msekit-other").mkdir()
    with folder_for_uploads() as own:
        remove_leftovers()
        assert own.is_dir()
        assert not dead.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["msekit-other"]


@pytest.mark.parametrize("path", ["/api/predict", "/"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"text=caf%E9", FORM["content-type"]),
        (b"text=caf\xe9", FORM["content-type"]),
        (b"te%FFxt=a", FORM["content-type"]),
        (b'--X\r\nContent-Disposition: form-data; name="text"\r\n\r\ncaf\xe9\r\n--X--\r\n', MULTIPART),
        (b'--X\r\nContent-Disposition: form-data; name="text"\r\n\r\n\xff\xfea\x00\r\n--X--\r\n', MULTIPART),
        (b'--X\r\nContent-Disposition: form-data; name="hi\xff"\r\n\r\na\r\n--X--\r\n', MULTIPART),
        (b'{"text": "caf\xe9"}', "application/json"),
        ('{"text": "a"}'.encode("utf-16"), "application/json"),
        (b'{"text": "a"}', "text/plain"),
        (b'{"text": "caf\xe9"}', "text/json"),
        (b"--X--", "multipart/form-data"),
    ],
)
def test_texts_that_are_no_utf8_are_refused(port: int, path: str, body: bytes, kind: str) -> None:
    status, text, _ = ask(port, body, {"content-type": kind}, path)
    assert status == 400
    assert not re.search("codec|Expecting|surrogate", text)
    said = json.loads(text)["error"] if path != "/" else text
    assert re.search("UTF-8|utf-8|the body is no form|the form cannot be read", said)
    assert "\n" not in said or path == "/"


@pytest.mark.parametrize("charset", ["", "; charset=utf-8"])
def test_texts_in_utf8_arrive_as_they_were_sent(port: int, charset: str) -> None:
    word = "café 🙂 好"
    part = f'--X\r\nContent-Disposition: form-data; name="text"\r\n\r\n{word}\r\n--X--\r\n'.encode()
    url = FORM["content-type"] + charset
    for body, kind in (
        (part, MULTIPART + charset),
        (f"text={quote(word)}".encode(), url),
        (f"text={word}".encode(), url),
    ):
        status, page, _ = ask(port, body, {"content-type": kind}, "/")
        assert (status, word in page) == (200, True)

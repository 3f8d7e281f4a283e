"""`--read-only-samples`: the data set's samples are answered, and nothing that a visitor types, sends or uploads."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("starlette", reason="the extra msekit[serve] is not installed")

from starlette.testclient import TestClient

from msekit.errors import MsekitError
from msekit.inference.host import PlugInHost
from msekit.reporter import Reporter
from msekit.serving.app import create_app
from msekit.serving.request_queue import RequestQueue
from msekit.serving.shelf import shelf_of

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def site(erc_run: Path) -> Iterator[TestClient]:
    host = PlugInHost("tiny-llama")
    host.add("emotion", erc_run)
    shelves = {"emotion": shelf_of(erc_run, None, None, QUIET, required=True)}
    queue = RequestQueue(host)
    with closing(queue), TestClient(create_app(queue, shelves, read_only=True), base_url="http://localhost") as client:
        yield client


def test_a_sample_is_answered_as_the_plug_in_answers_it(site: TestClient, erc_run: Path) -> None:
    host = PlugInHost("tiny-llama")
    host.add("emotion", erc_run)
    shelf = shelf_of(erc_run, None, None, QUIET)
    answer = site.post("/api/predict", json={"sample": "1", "withheld": True}).json()
    alone = host.predict("emotion", shelf.table.texts[1], **shelf.given(1))
    assert answer["scores"] == pytest.approx(alone.scores, abs=1e-5)
    assert list(answer["without"]) == ["audio", "vision", "audio and vision"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text": "well"}, "'text' is not read"),
        ({"sample": "1", "text": "well"}, "'text' is not read"),
        ({"sample": "1", "audio": [[0.0]]}, "'audio' is not read"),
        ({"sample": "1", "history": [[None, "well"]]}, "'history' is not read"),
        ({"samples": [{"text": "well"}]}, "'text' is not read"),
        ({"samples": [{}]}, "no sample is picked"),
        ({}, "no sample is picked"),
    ],
)
def test_whatever_is_sent_is_refused(site: TestClient, fields: dict, named: str) -> None:
    answer = site.post("/api/predict", json=fields)
    assert answer.status_code == 400
    assert named in answer.json()["error"]


def test_a_file_is_refused_and_the_page_offers_no_field_for_it(site: TestClient) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 2), np.float32))
    upload = {"vision": ("v.npy", stream.getvalue())}
    assert "vision&#39; is not read" in site.post("/", data={"sample": "1"}, files=upload).text
    page = site.get("/").text
    assert "<textarea" not in page
    assert 'type="file"' not in page
    assert '<select name="sample"><option value="0"' in page.replace("\n    ", "")
    assert "Answer" in site.post("/", data={"plug_in": "emotion", "sample": "0"}).text
    assert site.get("/api/plug-ins").json()[0]["read_only"] is True


def test_a_run_whose_data_is_gone_is_refused_where_nothing_else_could_be_asked(tmp_path: Path, erc_run: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "adapter.json"):
        (run / name).write_text((erc_run / name).read_text())
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"dataset": str(tmp_path / "gone.yaml")}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert shelf_of(run, None, None, QUIET) is None
    with pytest.raises(MsekitError, match="no such data set description"):
        shelf_of(run, None, None, QUIET, required=True)

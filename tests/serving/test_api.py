"""The JSON endpoints: several samples in one request, history, and what programs ask beside a prediction."""

from __future__ import annotations

import json
import re

import pytest
from test_serve import Client, client  # noqa: F401 - the server with two plug-ins

from msekit.data.readers.published import Row
from msekit.serving.api import MOST_SAMPLES


def fields_of(row: Row) -> dict[str, object]:
    return {"text": row.text, "audio": row.audio.tolist(), "vision": row.vision.tolist()}


def test_several_samples_are_answered_in_their_order(client: Client, erc_rows: list[Row]) -> None:  # noqa: F811
    rows = erc_rows[:20]
    status, answer = client.json({"plug_in": "emotion", "samples": [fields_of(row) for row in rows]})
    assert status == 200
    for row, one in zip(rows, answer["answers"], strict=True):
        expected = client.host.predict("emotion", row.text, row.audio, row.vision)
        assert one["scores"] == pytest.approx(expected.scores, abs=1e-5)
        assert "without" not in one
    status, answer = client.json({"samples": [fields_of(rows[0])], "withheld": True})
    assert list(answer["answers"][0]["without"]) == ["audio", "vision", "audio and vision"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"samples": []}, "no list of 1 to"),
        ({"samples": {}}, "no list of 1 to"),
        ({"samples": [{"text": "a"}] * (MOST_SAMPLES + 1)}, "no list of 1 to"),
        ({"samples": [{"text": "a"}], "text": "b"}, "'text' stands beside 'samples'"),
        ({"samples": [{"text": "a"}, "b"]}, "sample 1 is no object"),
        ({"samples": [{"text": "a"}, {"text": "b", "colour": 1}]}, "sample 1 is no object"),
        ({"samples": [{"text": "a"}, {"text": 3}]}, "sample 1: 'text' is a int"),
        ({"samples": [{"text": "a"}, {"audio": "/etc/passwd"}]}, "sample 1: features are nested lists"),
        ({"text": "a", "history": [["Ann", 3]]}, "'history' is a int, not a text"),
        ({"text": "a", "history": 3}, "not a list of utterances"),
    ],
)
def test_bad_lists_are_a_message_each(client: Client, fields: dict, complaint: str) -> None:  # noqa: F811
    status, answer = client.json(fields)
    assert status == 400
    assert complaint in answer["error"]


def test_history_is_taken_by_the_endpoint_and_the_page(client: Client) -> None:  # noqa: F811
    note = "this plug-in reads no history: it was left out"
    status, answer = client.json({"text": "Well.", "history": [["Ann", "Hi."]], "speaker": "Bob"})
    assert (status, answer["notes"]) == (200, [note])
    status, page = client.form("/", {"plug_in": "emotion", "text": "Well.", "history": "Ann: Hi.\nBob: So.\n"})
    assert status == 200
    assert note in page


def test_health_and_metrics_say_what_was_done(client: Client) -> None:  # noqa: F811
    status, text = client.ask("GET", "/healthz")
    assert (status, json.loads(text)) == (200, {"status": "ok", "plug_ins": ["emotion", "sentiment"], "waiting": 0})

    def counted(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} ([0-9.]+)$", client.ask("GET", "/metrics")[1], re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    good, bad, samples = (
        'msekit_requests_total{status="200"}',
        'msekit_requests_total{status="400"}',
        "msekit_samples_total",
    )
    before = [counted(name) for name in (good, bad, samples)]
    client.json({"samples": [{"text": "a"}] * 3})
    client.json({"text": 3})
    assert [counted(name) for name in (good, bad, samples)] == [before[0] + 1, before[1] + 1, before[2] + 3]


def test_the_description_names_every_endpoint(client: Client) -> None:  # noqa: F811
    status, text = client.ask("GET", "/openapi.json")
    described = json.loads(text)
    assert (status, described["openapi"]) == (200, "3.1.0")
    for path, methods in described["paths"].items():
        (method,) = methods
        status, _ = client.ask(method.upper(), path, b'{"text": "a"}', {"content-type": "application/json"})
        assert status == 200, path
    body = described["paths"]["/api/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    example = {"audio": None, "vision": None, "plug_in": "emotion", "text": "a", "speaker": None, "history": None}
    example |= {"sample": "", "withheld": False, "samples": None}
    assert body["properties"].keys() == example.keys()
    assert client.json(example)[0] == 200

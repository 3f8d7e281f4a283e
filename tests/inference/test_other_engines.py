"""A plug-in answered by another engine: a stand-in server that reads embeddings with plain transformers."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from test_history import rows, run  # noqa: F401 - a run with context, by recipe
from transformers import AutoModelForCausalLM

import msekit
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.errors import MsekitError

pytestmark = pytest.mark.slow  # the runs are trained first, in seconds
EXAMPLE = Path(__file__).parents[2] / "examples" / "other_engines.py"


@pytest.fixture(scope="module")
def client() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("other_engines", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Answers as vLLM's and SGLang's documents say they do."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint_folder("tiny-llama"), dtype=torch.float32).eval()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/v1/completions":
                raw = base64.b64decode(body["prompt_embeds"])
                embeddings_Sd = torch.load(io.BytesIO(raw), weights_only=True)
            else:
                embeddings_Sd = torch.tensor(body["input_embeds"])
            with torch.no_grad():
                logits_V = model(inputs_embeds=embeddings_Sd[None].float()).logits[0, -1]
            values = logits_V.log_softmax(dim=-1).tolist()
            if self.path == "/v1/completions":
                likeliest = sorted(range(len(values)), key=lambda token: -values[token])[: body["logprobs"]]
                top = {f"token_id:{token}": values[token] for token in likeliest}
                answer: Any = {"choices": [{"text": "", "logprobs": {"top_logprobs": [top]}}]}
            else:
                named = [[values[token], token, None] for token in body["token_ids_logprob"]]
                answer = {"text": "", "meta_info": {"output_token_ids_logprobs": [named]}}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_address[1]}"
    listening.shutdown()
    listening.server_close()


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_emotions_of_an_engine_are_those_of_predict(
    client: Any, server: str, engine: str, erc_run: Path, erc_rows
) -> None:
    plug_in = msekit.load_run(erc_run)
    for row in erc_rows[:3]:
        given = {"audio": row.audio, "vision": row.vision}
        answered = client.predict(plug_in, engine, server, "", row.text, **given)
        expected = plug_in.predict(row.text, **given)
        assert answered.scores == pytest.approx(expected.scores, abs=1e-5)
        assert answered.prediction == expected.prediction


def test_intensities_take_a_query_for_every_beginning_of_a_label(
    client: Any, server: str, msa_run: Path, msa_rows
) -> None:
    plug_in, row = msekit.load_run(msa_run), msa_rows[0]
    given = {"audio": row.audio, "vision": row.vision}
    prompt = plug_in.prompt_embeds(row.text, **given)
    assert len(prompt.queries) == len(plug_in.labels.trie.inner) > 1
    answered = client.predict(plug_in, "vllm", server, "", row.text, **given)
    expected = plug_in.predict(row.text, **given)
    assert answered.scores == pytest.approx(expected.scores, abs=1e-5)
    assert answered.prediction == pytest.approx(expected.prediction, abs=1e-4)


def test_opinion_and_history_are_part_of_it(client: Any, server: str, run: Path, rows) -> None:  # noqa: F811
    plug_in = msekit.load_run(run)
    given = {"audio": rows[0]["folder"] / "audio" / "test1.safetensors", "history": [("Ann", "Hi.")], "speaker": "Bob"}
    answered = client.predict(plug_in, "sglang", server, "", "Well.", **given)
    assert answered.scores == pytest.approx(plug_in.predict("Well.", **given).scores, abs=1e-5)


def test_answers_that_lack_something_are_refused(erc_run: Path) -> None:
    plug_in = msekit.load_run(erc_run)
    prompt = plug_in.prompt_embeds("Well.")
    whole = [dict.fromkeys(query.tokens, -1.0) for query in prompt.queries]
    plug_in.from_logprobs(prompt, whole)
    with pytest.raises(MsekitError, match="0 answers for"):
        plug_in.from_logprobs(prompt, [])
    first = prompt.queries[0].tokens[0]
    for value, complaint in ((0.7, "is no log-probability"), (float("nan"), "is no log-probability")):
        with pytest.raises(MsekitError, match=complaint):
            plug_in.from_logprobs(prompt, [whole[0] | {first: value}, *whole[1:]])
    del whole[0][first]
    with pytest.raises(MsekitError, match=f"no log-probability of token {first}"):
        plug_in.from_logprobs(prompt, whole)

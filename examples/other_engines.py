"""A plug-in answered by another engine that holds the same LLM: vLLM or SGLang, which take embeddings as input.

    vllm serve HuggingFaceTB/SmolLM2-135M-Instruct --enable-prompt-embeds --max-logprobs -1 --dtype float32
    python -m sglang.launch_server --model-path HuggingFaceTB/SmolLM2-135M-Instruct --disable-radix-cache
    python examples/other_engines.py RUN vllm http://127.0.0.1:8000 --text "Oh my God, you came!" --audio clip.wav

**Not run against vLLM or SGLang themselves**: written from their documented interfaces, tested against a stand-in
server that answers with plain transformers (`tests/inference/test_other_engines.py`). Log-probabilities must be those
of the whole vocabulary at temperature 1 (vLLM's `--logprobs-mode raw_logprobs`, its default).
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import urllib.request
from pathlib import Path
from typing import Any

import torch

import msekit
from msekit.model.embedded import Query

SECONDS = 60.0
_ALL = 1 << 20  # more than any vocabulary: every token's log-probability


def ask(url: str, body: dict[str, Any]) -> Any:
    """Post JSON, get JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.loads(answer.read())


def ask_vllm(server: str, model: str, query: Query) -> dict[int, float]:
    """vLLM's completions endpoint: the embeddings as a tensor in base64, the likeliest tokens by their numbers."""
    content = io.BytesIO()
    torch.save(query.embeddings, content)
    body = {
        "model": model,
        "prompt_embeds": base64.b64encode(content.getvalue()).decode(),
        "max_tokens": 1,
        "temperature": 1.0,
        "logprobs": _ALL,
        "return_tokens_as_token_ids": True,
    }
    (likeliest,) = ask(f"{server}/v1/completions", body)["choices"][0]["logprobs"]["top_logprobs"]
    return {int(name.removeprefix("token_id:")): value for name, value in likeliest.items()}


def ask_sglang(server: str, model: str, query: Query) -> dict[int, float]:
    """SGLang's generate endpoint: the embeddings as lists, the log-probabilities of the tokens that are named."""
    body = {
        "input_embeds": query.embeddings.float().tolist(),
        "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
        "return_logprob": True,
        "token_ids_logprob": list(query.tokens),
    }
    (named,) = ask(f"{server}/generate", body)["meta_info"]["output_token_ids_logprobs"]
    return {int(token): value for value, token, *_ in named}


ENGINES = {"vllm": ask_vllm, "sglang": ask_sglang}


def predict(plug_in: Any, engine: str, server: str, model: str, text: str, **given: Any) -> Any:
    """A prediction of which the LLM's part comes from a server."""
    prompt = plug_in.prompt_embeds(text, **given)
    return plug_in.from_logprobs(prompt, [ENGINES[engine](server, model, query) for query in prompt.queries])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("server")
    parser.add_argument("--model", default="", help="the name that the server knows the LLM by")
    parser.add_argument("--text", required=True)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--vision", type=Path)
    options = parser.parse_args()
    answer = predict(
        msekit.load_run(options.run),
        options.engine,
        options.server.rstrip("/"),
        options.model,
        options.text,
        audio=options.audio,
        vision=options.vision,
    )
    print(json.dumps(answer.record(), ensure_ascii=False))

"""Training and evaluation speed on a GPU beside the published procedure, at the published backbones' real shapes.

Weights are random (speed and memory do not depend on their values), the data has MELD's widths and frames and meld6's
real text lengths. Every side runs in a process of its own, so that its memory is its own and the procedure can also be
run with synchronous kernel launches, as its authors did; the sides take turns. Before it is timed, every side of the
kit must agree with the procedure in the same layout on the same weights: in loss and gradient, several seeds each in
its own, and in the scores of the true labels. Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.machine import Machine, said
from benchmarks.speed.agreement import distance, joint_outcomes, kit_outcome, procedure_outcome, scored_loss
from benchmarks.speed.eval_speed import kit_side as scores_side
from benchmarks.speed.eval_speed import procedure_side as answers_side
from benchmarks.speed.measure import alternate, machine, matrix_peak, spread
from benchmarks.speed.procedure import Procedure
from benchmarks.speed.train_speed import in_layout, kit_side, procedure_side, seeds_side
from msekit.backbones.backbone import Backbone, PassSettings
from msekit.data.batches.batch import Collator
from msekit.data.catalogue import DATASETS
from msekit.model.labels import LabelSpace
from msekit.model.make_adapter import make_adapter
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout
from msekit.process import ready_for_cuda
from msekit.settings.config import RunConfig
from msekit.settings.resolve import resolve
from msekit.training.build import Parts
from msekit.training.parallel_seeds import parts_for

SHAPES: dict[str, dict[str, Any]] = {
    "qwen-1.8b": {
        **{"model_type": "qwen2", "hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 5504},
        **{"num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151936},
    },
    "llama2-7b": {
        **{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008},
        **{"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000},
    },
    "chatglm3-6b": {
        **{"model_type": "glm", "hidden_size": 4096, "num_hidden_layers": 28, "intermediate_size": 13696},
        **{"num_attention_heads": 32, "num_key_value_heads": 2, "vocab_size": 65024, "head_dim": 128},
        **{"attention_bias": True, "pad_token_id": 0},
    },
    "tiny": {
        **{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
        **{"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 1024},
    },
}
SYNCHRONOUS, PROCEDURE, SEEDS = "procedure, synchronous launches", "procedure", "kit, five seeds at once"
SIDES = (SYNCHRONOUS, PROCEDURE, "kit, paper layout", "kit, prompt-first layout", SEEDS)
COMPILED = ", compiled"
COMPILED_SIDES = (PROCEDURE, "kit, paper layout", *(side + COMPILED for side in SIDES[2:]))
_ALWAYS = ("prefix", "last-layer", "lean-parts")
ASKED_FOR = {", joined products": (*_ALWAYS, "joined"), ", Triton kernels": (*_ALWAYS, "joined", "triton")}
"""What is behind a side's name → ways through the LLM, some of which a run takes where it names them alone."""
WAYS_SIDES = (PROCEDURE, *(side + way for side in (SIDES[2], SEEDS) for way in ("", *ASKED_FOR)))
EVALUATION = ", evaluation"
EVALUATION_SIDES = tuple(side + EVALUATION for side in SIDES[:4])
COUNT = 5
"""Seeds at once."""
LOSS, GRADIENT = 2e-3, 0.05
"""Largest relative distance of loss and gradient's norm, in 16 bits. With other texts the loss is 6e-3 away."""
# how many of meld6's training texts have 0, 1, 2, … tokens (SmolLM2's tokenizer)
TEXTS_BY_LENGTH = (
    *(0, 2, 203, 147, 181, 177, 207, 190, 200, 182, 181, 145, 158, 135, 126, 123, 137, 104, 89, 81, 101, 76, 49, 47),
    *(58, 47, 51, 43, 40, 39, 23, 21, 15, 13, 11, 9, 5, 10, 2, 2, 1, 2, 3, 1, 3, 2, 1, 2, 1, 1, 1, 1, 0, 1, 1),
)
AUDIO, VISION = (157, 64), (32, 64)
"""Most frames and width, as published for MELD."""


class PieceTokenizer:
    """Words and marks, one token each; enough to give prompts and labels their usual number of tokens."""

    bos_token_id, eos_token_id = None, 1

    def __init__(self, size: int) -> None:
        self.size, self.numbers = size, {}  # type: ignore[var-annotated]

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        pieces = re.findall(r"\w+|[^\w\s]+", text)
        return {
            "input_ids": [self.numbers.setdefault(piece, 2 + len(self.numbers) % (self.size - 2)) for piece in pieces]
        }

    def batch_decode(self, ids: torch.Tensor, **_: Any) -> list[str]:
        """Answers as numbers."""
        return [" ".join(map(str, row)) for row in ids.tolist()]


class MadeTable:
    """A split of random features and meld6's text lengths."""

    def __init__(self, classes: int) -> None:
        self.random = np.random.default_rng(0)
        self.tokens = self.random.permutation(np.repeat(np.arange(len(TEXTS_BY_LENGTH)), TEXTS_BY_LENGTH))
        size = len(self.tokens)
        self.labels = self.random.integers(0, classes, size)
        self.audio_lengths, self.vision_lengths = (self.random.integers(8, m + 1, size) for m, _ in (AUDIO, VISION))
        self.audio_LD, self.vision_LD = (self.random.standard_normal(s, dtype=np.float32) for s in (AUDIO, VISION))

    def __len__(self) -> int:
        return len(self.tokens)

    def audio(self, position: int) -> np.ndarray:
        """(L, 64)."""
        return self.audio_LD[: self.audio_lengths[position]]

    def vision(self, position: int) -> np.ndarray:
        """(L, 64)."""
        return self.vision_LD[: self.vision_lengths[position]]


def made(
    shape: str,
    dtype: torch.dtype,
    device: torch.device,
    passes: PassSettings | None = None,
    layers: int | None = None,
) -> tuple[RunConfig, Parts]:
    """A run by recipe `paper` over a random backbone of a real shape (with fewer layers, where asked) and made data."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    with torch.device(device):
        attention = "sdpa" if device.type == "cuda" else "eager"
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    backbone = Backbone(shape, model, PieceTokenizer(config.vocab_size), "random", passes or PassSettings())
    spec = DATASETS["meld"]
    labels = LabelSpace(spec, backbone.encode, backbone.end)
    assert spec.labels is not None
    table = MadeTable(len(spec.labels))
    texts = [table.random.integers(2, config.vocab_size, length).tolist() for length in table.tokens]
    collator = Collator(table, texts, labels.indices(table.labels), lambda x: x, lambda x: x)  # type: ignore[arg-type]
    widths = {"audio": SimpleNamespace(width=AUDIO[1]), "vision": SimpleNamespace(width=VISION[1])}
    cache = SimpleNamespace(info=SimpleNamespace(fingerprint="made", **widths), split=lambda _: table)
    backbone_name = "qwen-1.8b" if shape == "tiny" else shape
    fields = {"backbone": backbone_name, "dataset": "meld", "output": "none", "save_minutes": 1e6}
    size = 2 if shape == "tiny" else 16
    sizes = [f"optim.batch_size={size}", f"evaluation.batch_size={size}", "adapter.pseudo_tokens=4"]
    run = resolve(fields | {"recipe": "paper"}, task="erc", overrides=sizes)
    layout = PromptLayout(backbone.encode, backbone.bos, spec.task_prompt)
    adapter = make_adapter(run.adapter, backbone.text_dim, AUDIO[1], VISION[1], seed=run.seed)
    parts = Parts(
        spec=spec,
        cache=cache,  # type: ignore[arg-type]
        model=MSEModel(backbone, adapter, layout, labels).to(device),
        preprocessors={},
        collators={"train": collator, "test": collator},
        text_limit=spec.text_limit,
        truncated=0,
        evaluation_batch=16,
    )
    return run, parts


def measured(name: str, shape: str, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    """One side, in this process.

    Raises:
        AssertionError: What it computes is not what the procedure computes.
    """
    published = name.startswith(PROCEDURE)
    half = torch.float16 if published else torch.bfloat16
    shape, _, layers = shape.partition(":")
    dtype, depth = half if device.type == "cuda" else torch.float32, int(layers) if layers else None
    ways = next((ways for ending, ways in ASKED_FOR.items() if name.endswith(ending)), "auto")
    config, parts = made(shape, dtype, device, PassSettings(ways, compiled=name.endswith(COMPILED)), depth)
    if layout := re.match("kit, (.+) layout", name):
        config, parts = in_layout(config, parts, layout[1])
    loss = first_loss(name, config, parts)
    if name.endswith(EVALUATION):
        side = answers_side(config, parts, steps, new_tokens=4) if published else scores_side(config, parts, steps)
    elif name.startswith(SEEDS):
        side = seeds_side(config, parts, steps, count=COUNT)
    else:
        side = (procedure_side if published else kit_side)(config, parts, steps)
    alternate([side], rounds, device)
    return {
        "loss": loss,
        "samples": side.per_second("samples"),
        "tokens": side.per_second("useful_tokens"),
        "flop": side.per_second("flop"),
        "peak_bytes": side.peak_bytes,
        "matrix": matrix_peak(device, parts.backbone.model.dtype, 0.5 if device.type == "cuda" else 0.01),
        "columns": Procedure(parts).tokens_read(),
        "prompt": len(parts.backbone.encode(parts.spec.task_prompt)),
        "machine": machine(device),
    }


def first_loss(name: str, config: RunConfig, parts: Parts) -> float:
    """A side's loss of the first samples; of several seeds, the first's.

    Raises:
        AssertionError: It, the gradient's norm, or what another seed has of both, is not the procedure's.
    """
    size = config.optim.batch_size
    shares, every = [list(range(size))], [parts]
    if name.startswith(PROCEDURE):
        return procedure_outcome(parts, shares[0])[0]
    if name.startswith(SEEDS):
        shares = [list(range(n * size, (n + 1) * size)) for n in range(COUNT)]
        every = [parts_for(config.model_copy(update={"seed": seed}), parts) for seed in range(COUNT)]
    exact = [procedure_outcome(*seeds_parts) for seeds_parts in zip(every, shares, strict=True)]
    if name.endswith(EVALUATION):
        outcomes = [(scored_loss(parts, shares[0]), exact[0][1])]
    else:
        outcomes = joint_outcomes(every, shares) if name.startswith(SEEDS) else [kit_outcome(parts, shares[0])]
    for seed, (ours, theirs) in enumerate(zip(outcomes, exact, strict=True)):
        loss, gradient = map(distance, ours, theirs)
        said = f"{name}, seed {seed}: loss and gradient {ours}, the procedure's {theirs}"
        assert loss <= LOSS, said
        assert gradient <= GRADIENT, said
    return outcomes[0][0]


def child(name: str, shape: str, device: str, rounds: int, steps: int) -> dict[str, Any]:
    """One side, in a process of its own."""
    environment = os.environ | ({"CUDA_LAUNCH_BLOCKING": "1"} if name.startswith(SYNCHRONOUS) else {})
    command = [sys.executable, "-m", "benchmarks.gpu.speed", name, shape, device, str(rounds), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    print(done.stderr, file=sys.stderr, end="", flush=True)
    if done.returncode:
        raise RuntimeError(next(reversed(done.stderr.splitlines()), f"exit code {done.returncode}"))
    return json.loads(done.stdout.splitlines()[-1])


def run(
    machine: Machine, backbone: str, turns: int, steps: int, sides: tuple[str, ...] = SIDES
) -> list[dict[str, Any]]:
    """Every side so many times, in turn; a row for each.

    Args:
        machine: Where; in its dry mode every side takes one step in this process.
        backbone: One of `SHAPES`, with `:N` behind it for N layers alone.
        turns: Processes per side.
        steps: Of a block; a process runs one block to warm up and three that count.
        sides: `SIDES`, or others with a procedure among them.

    A side that fails, or does not agree with the procedure, has a row that says so; the others are measured.
    """
    turns_of: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    failed: dict[str, str] = {}
    for _ in range(1 if machine.tiny else turns):
        for name in [side for side in sides if side not in failed]:
            try:
                if machine.tiny:
                    turns_of[name].append(measured(name, "tiny", torch.device(machine.device), 1, 1))
                else:
                    turns_of[name].append(child(name, backbone, machine.device, 3, steps))
            except Exception as error:  # whatever a side raises that nobody has run on this machine yet
                failed[name] = said(error)
    base = next(name for name in sides if name.startswith(PROCEDURE) and not name.startswith(SYNCHRONOUS))
    measured_sides = {name: made for name, made in turns_of.items() if name not in failed}
    return rows(measured_sides, base) + [{"side": name, "failed": why} for name, why in failed.items()]


def rows(turns_of: dict[str, list[dict[str, Any]]], base: str = PROCEDURE) -> list[dict[str, Any]]:
    """Every process gives a median; the range is over the processes."""
    theirs = [statistics.median(turn["samples"]) for turn in turns_of.get(base, ())]
    peak = max((turn["matrix"] for turns in turns_of.values() for turn in turns), default=0.0) / 1e12
    lines = []
    for name, turns in turns_of.items():
        samples = [statistics.median(turn["samples"]) for turn in turns]
        row: dict[str, Any] = {"side": name, "samples/s": spread(samples)}
        row["useful tokens/s"] = round(statistics.median(statistics.median(turn["tokens"]) for turn in turns))
        share = statistics.median(statistics.median(turn["flop"]) / turn["matrix"] for turn in turns)
        row |= {"share of the matrix peak": f"{share:.0%}", "matrix peak, TFLOP/s": round(peak, 1)}
        row["first loss"] = round(turns[0]["loss"], 4)
        row["peak GB"] = round(max(turn["peak_bytes"] for turn in turns) / 1e9, 2)
        ratios = [mine / other for mine, other in zip(samples, theirs, strict=True)] if theirs else []
        row[f"x {PROCEDURE}"] = spread(ratios) if ratios else "the procedure failed"
        lines.append(row | {key: turns[-1][key] for key in ("prompt", "columns", "machine")})
    return lines


def main() -> None:
    """One side, for the process that asked for it: `child`."""
    parser = argparse.ArgumentParser(description="One side of a part of benchmarks.gpu.suite; prints JSON.")
    parser.add_argument("side")
    parser.add_argument("shape")
    parser.add_argument("device")
    parser.add_argument("rounds", type=int)
    parser.add_argument("steps", type=int)
    options = parser.parse_args()
    if options.device != "cpu":
        ready_for_cuda()
    print(
        json.dumps(measured(options.side, options.shape, torch.device(options.device), options.rounds, options.steps))
    )


if __name__ == "__main__":
    main()

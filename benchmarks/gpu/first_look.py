"""The first minutes on a GPU: does it run, is it right, and what does a step consist of? A row for each question.

Every question is on its own: one that fails says so, and the next one is asked. Only an error of CUDA itself ends the
part, for after it nothing can be computed in the same process.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import speed
from benchmarks.gpu.machine import Machine, said
from benchmarks.speed.agreement import distance, kit_outcome, procedure_outcome
from benchmarks.speed.measure import Side, alternate
from benchmarks.speed.train_speed import in_layout, kit_side, seeds_side
from msekit.distributed.accelerator import accelerator_for
from msekit.model.mse_model import MSEModel
from msekit.settings.config import RunConfig
from msekit.training.build import Parts
from msekit.training.engine import PlainEngine

KEYS = (63, 64, 65)
"""Keys of a padded batch: with a multiple of 64 some kernels have given gradients that are not finite."""
TOP = 12
"""Kernels that are named, those that take longest first."""


class Look:
    """What the questions are about.

    Args:
        machine: Where.
        shape: Of the backbone, one of `speed.SHAPES`.
    """

    def __init__(self, machine: Machine, shape: str) -> None:
        self.machine, self.shape = machine, "tiny" if machine.tiny else shape
        self.device = torch.device(machine.device)
        self.samples = 2 if machine.tiny else 16
        self.run: RunConfig
        self.parts: Parts

    def card(self) -> dict[str, Any]:
        """What the machine is."""
        if not self.machine.cuda:
            return {"device": "CPU"}
        properties, cudnn = torch.cuda.get_device_properties(0), torch.backends.cudnn
        return {
            "device": properties.name,
            "sm": f"{properties.major}{properties.minor}",
            "GiB": round(properties.total_memory / 2**30, 1),
            "cudnn": cudnn.version(),
            "cudnn attention": torch.backends.cuda.cudnn_sdp_enabled(),
            "LSTM in": getattr(getattr(cudnn, "rnn", None), "fp32_precision", f"TF32: {cudnn.allow_tf32}"),
        }

    def made(self) -> dict[str, Any]:
        """The backbone, in bf16."""
        self.run, self.parts = speed.made(self.shape, torch.bfloat16, self.device)
        passes = self.parts.backbone.passes
        parameters = sum(parameter.numel() for parameter in self.parts.backbone.model.parameters())
        return {"parameters": parameters, "used": list(passes.uses), "refused": passes.refused}

    def agrees(self) -> dict[str, Any]:
        """Loss and gradient beside the published procedure's, relative."""
        found: dict[str, Any] = {}
        for layout in ("paper", "prompt-first"):
            _, parts = in_layout(self.run, self.parts, layout)
            indices = list(range(self.samples))
            ours, theirs = kit_outcome(parts, indices), procedure_outcome(parts, indices)
            loss, gradient = map(distance, ours, theirs)
            right = loss <= speed.LOSS and gradient <= speed.GRADIENT
            found[layout] = {
                "loss": loss,
                "gradient": gradient,
                "right": right,
                "prefix": parts.model.prefix is not None,
            }
        assert all(each["right"] for each in found.values()), found
        return found

    def padded(self) -> dict[str, Any]:
        """Adapter tensors without a finite gradient after a padded batch, with and without a prefix and cuDNN."""
        found = {}
        for prefix in (True, False):
            ways = self.parts.backbone.passes.uses
            with self.parts.backbone.passes.limited([way for way in ways if way != "prefix" or prefix]):
                _, parts = in_layout(self.run, self.parts, "paper")
                for keys in KEYS:
                    for cudnn in (False, True) if self.machine.cuda else (False,):
                        torch.backends.cuda.enable_cudnn_sdp(cudnn)
                        try:
                            found[f"prefix {prefix}, {keys} keys, cudnn {cudnn}"] = self.not_finite(parts, keys)
                        finally:
                            torch.backends.cuda.enable_cudnn_sdp(False)
        assert not any(count for name, count in found.items() if name.endswith("False")), found
        return found

    def not_finite(self, parts: Parts, keys: int) -> int:
        """Adapter tensors without a finite gradient after a batch that has so many keys."""
        model, collator = parts.model, parts.collators["train"]
        whole = model.for_training(collator([0]).to(self.device)).sequence.embeddings.shape[1]
        read = 0 if model.prefix is None else model.prefix.get_seq_length()
        length = max(keys - read - whole + len(collator.text_ids[0]), 1)
        batch = collator([0, 1])
        batch.text_ids = torch.full((2, length), 5)
        batch.text_lengths = torch.tensor([length, 1])
        model.zero_grad(set_to_none=True)
        model(batch.to(self.device)).backward()
        gradients = [parameter.grad for parameter in model.adapter.parameters()]
        count = sum(gradient is not None and not bool(gradient.isfinite().all()) for gradient in gradients)
        model.zero_grad(set_to_none=True)
        return count

    def resumes(self) -> dict[str, Any]:
        """A step, its state in main memory and back, and the step behind it by both."""
        models = [in_layout(self.run, self.parts, "paper")[1].model for _ in range(2)]
        engine, other = (PlainEngine(model, accelerator_for(self.device), self.run.optim) for model in models)
        batch = self.parts.collators["train"](list(range(self.samples))).to(self.device)
        self.step(engine, models[0], batch)
        adapter, moments = (
            {name: tensor.detach().cpu() for name, tensor in tensors.items()}
            for tensors in (models[0].adapter.state_dict(), engine.moments())
        )
        other.restore(adapter, moments)
        for each, model in zip((engine, other), models, strict=True):
            self.step(each, model, batch)
        pairs = zip(models[0].adapter.parameters(), models[1].adapter.parameters(), strict=True)
        apart = max(float((mine.detach() - theirs.detach()).abs().max()) for mine, theirs in pairs)
        assert apart <= self.run.optim.lr, apart
        return {
            "steps on": str({str(state["step"].device) for state in other.optimizer.state.values()}),
            "apart": apart,
        }

    def step(self, engine: PlainEngine, model: MSEModel, batch: Any) -> None:
        """One optimiser step."""
        engine.backward(batch, 1 / self.samples, True)
        engine.step(1e-3)

    def speed(self, name: str) -> dict[str, Any]:
        """Samples a second, and what a block of steps consists of."""
        steps = 1 if self.machine.tiny else 20
        if name == "five seeds":
            side = seeds_side(self.run, self.parts, max(steps // 2, 1), speed.COUNT)
        else:
            side = kit_side(*in_layout(self.run, self.parts, name), steps)
        alternate([side], 1 if self.machine.tiny else 3, self.device)
        found = {
            "samples/s": [round(value, 1) for value in side.per_second("samples")],
            "TFLOP/s": [round(value / 1e12, 2) for value in side.per_second("flop")],
            "peak GB": round(side.peak_bytes / 1e9, 2),
        }
        return found | self.profiled(side, steps)

    def profiled(self, side: Side, steps: int) -> dict[str, Any]:
        """Kernels a step, how long the card was busy, and with what."""
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.machine.cuda else [])]
        with profile(activities=activities) as seen:
            seconds = self.machine.seconds(side.run)
        kernels: Any = [event for event in seen.events() or () if str(event.device_type).endswith("CUDA")]
        longest: dict[str, float] = {}
        for kernel in kernels:
            longest[kernel.name[:60]] = longest.get(kernel.name[:60], 0.0) + kernel.device_time_total / 1e3
        top = dict(sorted(longest.items(), key=lambda pair: -pair[1])[:TOP])
        return {
            "kernels a step": round(len(kernels) / steps),
            "wall ms": round(seconds * 1e3, 1),
            "busy ms": round(sum(longest.values()), 1),
            "longest, ms": {name: round(value, 1) for name, value in top.items()},
        }


def run(machine: Machine, shape: str) -> list[dict[str, Any]]:
    """Ask everything; a row for each question, which is printed on stderr as soon as it is there."""
    look = Look(machine, shape)
    questions: dict[str, Callable[[], dict[str, Any]]] = {
        "what is the machine": look.card,
        "is the backbone made": look.made,
        "does it agree with the procedure": look.agrees,
        "are gradients of padded batches finite": look.padded,
        "does it resume": look.resumes,
        **{f"how fast: {name}": partial(look.speed, name) for name in ("paper", "prompt-first", "five seeds")},
    }
    rows = []
    for question, ask in questions.items():
        started = time.perf_counter()
        row: dict[str, Any] = {"question": question}
        try:
            row["answer"] = ask()
        except Exception as error:  # the next question may still be answered
            row["failed"] = said(error)
            broken = machine.cuda and "CUDA error" in str(error)
        else:
            broken = False
        rows.append(row | {"seconds": round(time.perf_counter() - started, 1)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if broken:
            break
    return rows

"""Several processes through the real launcher: the adapter of one process, what each card holds, how fast.

The same as the tests do on a CPU, over NCCL and at a published backbone's size, one process per GPU. One GPU is enough
for a first look. How far rounding alone takes two adapters apart is measured beside it: by one process that sums every
batch in two parts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu.machine import GIB, Machine

LIMIT_S = 240
PLAIN = [(name, way) for name in ("ddp", "zero1", "zero2", "zero3", "zero3-offload") for way in ("off", "on")]
IN_PARTS = "one process, in two parts"
QUANTISED = [("ddp", "off"), ("ddp", "on"), ("zero1", "off"), ("zero2", "off"), ("zero3", "off")]
"""(launch, checkpointing); the last one must be refused."""


def run(machine: Machine, backbone: str, precision: str) -> list[dict[str, Any]]:
    """Every launch configuration at one precision, one process first; a row for each."""
    quantised = precision in ("int8", "nf4")
    # a warm-up of one step at least: AdamW's first step divides a gradient by itself, rounding and all (`optim.py`)
    size, epochs = ("64", "3") if machine.tiny else ("75", "4")
    name = backbone if backbone == "tiny-llama" else str(machine.checkpoint(backbone))
    common = ["--backbone", name, "--dataset", "synthetic-erc", "--limit-train", size, "--epochs", epochs]
    common += ["--set", "optim.lr=5e-4", "--set", "evaluation.bootstrap=0", "--set", "evaluation.integrity=false"]
    common += ["--set", "optim.opinion_samples=1"]  # the fewest epochs alone: processes are compared, not plug-ins
    common += ["--quantization", precision] if quantised else ["--set", f"model.dtype={precision}"]
    several = ["--num-processes", str(torch.cuda.device_count() if machine.cuda else 2)]
    todo = QUANTISED if quantised else PLAIN
    with tempfile.TemporaryDirectory() as temporary:
        one = Path(temporary) / "one"
        rows = [train(machine, "one process", "off", common, one)]
        assert rows[0]["code"] == 0, rows[0]
        parts = Path(temporary) / "parts"
        rows.append(train(machine, IN_PARTS, "off", [*common, "--set", "optim.accumulation=2"], parts))
        rows[1]["difference"] = difference(one, parts)
        for launch, checkpointing in todo[:1] if machine.tiny else todo:
            more = ["--launch", launch, *several, "--set", f"model.checkpointing={checkpointing}"]
            output = Path(temporary) / f"{launch}-{checkpointing}"
            row = train(machine, launch, checkpointing, [*common, *more], output)
            refused = quantised and launch == "zero3"
            assert row["code"] == (2 if refused else 0), row
            assert not refused or "in shards" in row["said"], row
            rows.append(row | {"difference": difference(one, output)})
    return rows


def train(machine: Machine, launch: str, checkpointing: str, options: list[str], folder: Path) -> dict[str, Any]:
    """One training: how it ended, and the figures of its report."""
    command = [sys.executable, "-m", "msekit", "train", *options, "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    row: dict[str, Any] = {"launch": launch, "recomputed": checkpointing == "on", "code": done.returncode}
    report = folder / "seed-1111" / "report.json"
    outcome = json.loads(report.read_text()) if report.is_file() else {}
    error = next((line for line in done.stderr.splitlines() if "error:" in line), done.stderr[-500:])
    return row | {
        "peak_gb": round(outcome["peak_memory_bytes"] / GIB, 2) if outcome and machine.cuda else None,
        "samples_per_s": round(outcome["train_samples_per_s"], 1) if outcome else None,
        "difference": None,
        "said": "" if outcome else error,
    }


def difference(run: Path, other: Path) -> float | None:
    """Largest difference between two runs' adapters; None where the other has none."""
    files = [folder / "seed-1111" / "adapter.safetensors" for folder in (run, other)]
    if not all(file.is_file() for file in files):
        return None
    mine, theirs = map(load_file, files)
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def doctor(machine: Machine) -> list[dict[str, Any]]:
    """What `msekit doctor` says: a row per launch configuration, and its two processes."""
    command = [sys.executable, "-m", "msekit", "doctor", "--format", "json"]
    findings = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout)
    rows = [{"what": name, "problem": problem or ""} for name, problem in findings["launch"].items()]
    test = findings["self_test"]
    return [*rows, {"what": f"two processes over {test['backend']}", "problem": test["problem"] or ""}]

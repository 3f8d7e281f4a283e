"""Golden trajectories: the steps of three short trainings, written as text by the code as it is.

    python -m tests.golden.record

A change that computes nothing new leaves the files equal, so the command is run only with a change that does, and the
sentence that says why belongs to the commit. Every file also says how far rounding alone moves its numbers: the largest
relative distance to the same training limited to AVX2, and to the same batches summed in two parts.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
SHORT = ["data.limit_train=96", "optim.epochs=2", "model.dtype=fp32", "model.checkpointing=off"]
"""Twelve steps, the whole of their schedule; nothing that a machine decides."""
TWO_PARTS = "optim.accumulation=2"


class Row(NamedTuple):
    """One optimiser step."""

    step: int
    loss: float
    """The mean over the batch."""
    norm: float
    """Of the gradient in the adapter, before clipping."""


class Case(NamedTuple):
    """A training by its settings; the backbone is the tiny one."""

    title: str
    task: str
    settings: dict[str, str]
    run_file: str | None = None


CASES = {
    "quickstart": Case("the quickstart's run file, recipe kit", "erc", {"recipe": "kit"}, "quickstart"),
    "paper": Case("the paper's layout and recipe", "erc", {"dataset": "synthetic-erc", "recipe": "paper"}),
    "prompt-first": Case(
        "prompt first, recipe kit, intensities",
        "msa",
        {"dataset": "synthetic-msa", "layout": "prompt-first", "recipe": "kit"},
    ),
}


def trajectory(name: str, *overrides: str) -> list[Row]:
    """The steps of a case, by the code as it is.

    Args:
        name: Of the case.
        overrides: Further settings, as `--set` takes them.
    """
    from msekit.distributed.accelerator import accelerator_for
    from msekit.reporter import Reporter
    from msekit.settings.plan_runs import find_run_file
    from msekit.settings.resolve import resolve
    from msekit.training.build import build
    from msekit.training.loop import Run

    case, quiet = CASES[name], Reporter(quiet=True)
    asked = {"backbone": "tiny-llama", "profile": "cpu", "output": "none"} | case.settings
    file = find_run_file(case.run_file) if case.run_file else None
    config = resolve(asked, task=case.task, run_file=file, overrides=[*SHORT, *overrides])
    parts = build(config, quiet, ("train",))
    run = Run(config, parts, accelerator_for(parts.backbone.device), quiet)
    rows = []
    for epoch in range(config.optim.epochs):
        run.progress.epoch, run.progress.batch = epoch, 0
        for batch in run.begin_epoch():
            step = run.step(run.collate(batch), len(batch))
            run.progress.count(len(batch), step.loss, 0.0, 0.0)
            rows.append(Row(run.progress.step, step.loss, step.norm))
    return rows


def distance(rows: list[Row], others: list[Row]) -> tuple[float, float]:
    """The largest relative differences of losses and of norms."""
    assert len(rows) == len(others)
    pairs = [(a, b) for a, b in zip(rows, others, strict=True)]
    return (
        max(abs(a.loss - b.loss) / abs(a.loss) for a, b in pairs),
        max(abs(a.norm - b.norm) / abs(a.norm) for a, b in pairs),
    )


def lines(rows: list[Row]) -> str:
    """Nine digits tell every fp32 number from the next."""
    return "".join(f"{row.step:>4}  {row.loss:<12.9g}  {row.norm:.9g}\n" for row in rows)


def read(text: str) -> tuple[list[Row], tuple[float, float]]:
    """A file's steps, and how far rounding alone moves them."""
    rows, rounding = [], None
    for line in text.splitlines():
        if line.startswith("# rounding:"):
            words = line.split()
            rounding = float(words[words.index("loss") + 1]), float(words[words.index("norm") + 1])
        elif not line.startswith(("#", "step")):
            step, loss, norm = line.split()
            rows.append(Row(int(step), float(loss), float(norm)))
    assert rounding is not None
    return rows, rounding


def limited_to_avx2(name: str) -> list[Row]:
    """The steps of a case in a process that uses no wider instructions."""
    command = [sys.executable, "-m", "tests.golden.record", "--print", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | AVX2)
    return read("# rounding: loss 0 norm 0\n" + done.stdout)[0]


def recorded(name: str) -> str:
    """The content of a case's file."""
    rows = trajectory(name)
    orders = distance(rows, limited_to_avx2(name)), distance(rows, trajectory(name, TWO_PARTS))
    loss, norm = (max(values) for values in zip(*orders, strict=True))
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "numpy"))
    return (
        f"# Step, loss and norm of the gradient: {CASES[name].title}, on the tiny backbone in fp32.\n"
        f"# written by: python -m tests.golden.record, {date.today()}\n"
        f"# machine: {processor()}, one thread\n"
        f"# versions: python {platform.python_version()}, {versions}\n"
        f"# rounding: loss {loss:.1e} norm {norm:.1e} (limited to AVX2, or in two parts: largest relative distance)\n"
        f"step  loss          norm\n{lines(rows)}"
    )


def processor() -> str:
    """This CPU's name, and the widest instructions that torch uses on it."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    """Write every file; with `--print NAME`, only print that case's steps."""
    import torch

    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--print"]:
        sys.stdout.write(lines(trajectory(sys.argv[2])))
        return
    for name in CASES:
        (FOLDER / f"{name}.txt").write_text(recorded(name), encoding="utf-8")


if __name__ == "__main__":
    main()

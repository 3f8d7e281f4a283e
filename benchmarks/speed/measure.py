"""Measuring two or more ways to do one thing, alternating in one run, so that a busy machine slows them alike."""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass
class Work:
    """What one block did."""

    samples: int
    useful_tokens: int
    """Real tokens that attention saw: what was read once before counts for every sample that sees it."""
    flop: float
    """Products that the useful tokens need: see `useful_flop`."""


@dataclass
class Side:
    """One way, and what was measured of it. `run` does a block of work that a user would have to wait for."""

    name: str
    run: Callable[[], Work]
    seconds: list[float] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    peak_bytes: int = 0

    def per_second(self, what: str) -> list[float]:
        """Of every block: `samples`, `useful_tokens` or `flop` a second."""
        return [getattr(work, what) / seconds for work, seconds in zip(self.work, self.seconds, strict=True)]


def alternate(sides: list[Side], rounds: int, device: torch.device, warm_up: bool = True) -> None:
    """Run every side once a round, in an order that turns; the first round is thrown away unless told otherwise."""
    for number in range(rounds + warm_up):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            reset_peak_memory(device)
            synchronise(device)
            started = time.perf_counter()
            work = side.run()
            synchronise(device)
            seconds = time.perf_counter() - started
            side.peak_bytes = max(side.peak_bytes, peak_memory(device))
            if number >= warm_up:
                side.seconds.append(seconds)
                side.work.append(work)


def table(title: str, sides: list[Side], peak: float) -> str:
    """Markdown: medians with the range of the rounds; ratios to the first side, round by round."""
    rows = [
        f"| {title} | samples/s | useful tokens/s | share of the matrix peak | peak memory | × {sides[0].name} |",
        "|---|---|---|---|---|---|",
    ]
    base = sides[0].per_second("samples")
    for side in sides:
        samples = side.per_second("samples")
        ratios = [mine / theirs for mine, theirs in zip(samples, base, strict=True)]
        share = statistics.median(side.per_second("flop")) / peak
        rows.append(
            f"| {side.name} | {spread(samples)} | {statistics.median(side.per_second('useful_tokens')):,.0f} "
            f"| {share:.0%} | {side.peak_bytes / 1e9:.2f} GB | {'' if side is sides[0] else spread(ratios)} |"
        )
    return "\n".join(rows)


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"**{statistics.median(values):.2f}** ({min(values):.2f}–{max(values):.2f})"


def useful_flop(body_parameters: int, tokens: int, head_parameters: int, label_positions: int, training: bool) -> float:
    """2 × parameters for every real token forward, as much again backward (no weight gradients), and the head."""
    passes = 2 if training else 1
    return 2.0 * passes * (body_parameters * tokens + head_parameters * label_positions)


def body_and_head(model: torch.nn.Module) -> tuple[int, int]:
    """Parameters that multiply every token, and those of the head (also where it shares the embeddings' matrix)."""
    head = model.get_output_embeddings().weight.numel()  # type: ignore[operator]
    embedding = model.get_input_embeddings().weight.numel()  # type: ignore[operator]
    shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight  # type: ignore[operator]
    total = sum(parameter.numel() for parameter in model.parameters())
    return total - embedding - (0 if shared else head), head


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """The largest rate of plain square products, in FLOP/s."""
    best = 0.0
    for size in (8192, 4096) if device.type == "cuda" else (2048, 1024):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        a @ b
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            synchronise(device)
            once = time.perf_counter()
            for _ in range(10 if device.type == "cuda" else 1):
                a @ b
            synchronise(device)
            times = 10 if device.type == "cuda" else 1
            best = max(best, 2 * size**3 * times / (time.perf_counter() - once))
    return best


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Begin to look for the largest memory anew (on a CPU where the kernel lets a process do so)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (switch := Path("/proc/self/clear_refs")).exists():
        switch.write_text("5")


def peak_memory(device: torch.device) -> int:
    """The largest memory since, in bytes: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine(device: torch.device) -> str:
    """One line on what this ran on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    isa = "" if device.type == "cuda" else f", {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}{isa}, {torch.get_num_threads()} threads, torch {torch.__version__}"

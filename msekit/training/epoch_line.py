"""An epoch that was judged: its line of `metrics.jsonl`, and the same in words."""

from __future__ import annotations

from typing import Any

from msekit.evaluation.units import show
from msekit.runs.progress import Progress
from msekit.runs.report import Metrics


def epoch_line(
    progress: Progress,
    metrics: Metrics,
    valid_loss: float,
    better: bool,
    llm_weight: float | dict[str, float] | None,
    scaled: bool,
) -> dict[str, Any]:
    """The line of the epoch that ends.

    Args:
        progress: Where training stands; the epoch is not counted yet.
        metrics: Of the validation split.
        valid_loss: Likewise.
        better: Whether it is the best so far.
        llm_weight: How far the LLM is trusted beside an opinion; None without one.
        scaled: Whether the loss is scaled, so that steps may be skipped.
    """
    line: dict[str, Any] = {
        "epoch": progress.epoch + 1,
        "train_loss": progress.mean_loss,
        "valid_loss": valid_loss,
        "valid": metrics,
        "train_samples_per_s": progress.speed,
        "best": better,
    }
    if llm_weight is not None:
        line["llm_weight"] = llm_weight
    if scaled:
        line["skipped_steps"] = progress.skipped
    return line


def epoch_in_words(line: dict[str, Any], key_metric: str, skipped: int) -> str:
    """What the terminal says of it."""
    beside = f"  {skipped} steps skipped" if skipped else ""
    if (weight := line.get("llm_weight")) is not None:
        weights = weight.values() if isinstance(weight, dict) else [weight]
        beside += f"  LLM weight {', '.join(f'{one:.2f}' for one in weights)}"
    return (
        f"epoch {line['epoch']:>3}  train loss {line['train_loss']:.3f}  valid loss {line['valid_loss']:.3f}  "
        f"{key_metric} {show(key_metric, line['valid'][key_metric])}{beside}{'  (best)' if line['best'] else ''}"
    )

"""The answer over time: a plot of the utterances of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError, needs_extra

_MOST_LABELS = 10
_WIDTH, _HEIGHT = 10.0, 3.6  # inches
ENDINGS = (".png", ".svg", ".pdf")


def check_ending(path: Path) -> None:
    """Refuse a file that no plot can be.

    Raises:
        MsekitError: It ends in something else.
    """
    if path.suffix.lower() not in ENDINGS:
        raise MsekitError(f"'{path.suffix}' is no ending of a plot", where=path, fix=f"Known: {', '.join(ENDINGS)}.")


def draw_timeline(records: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw emotions as shares that fill each utterance, intensities as a line with the distribution's middle half.

    Args:
        records: Utterances with `start` and `end` in seconds, `prediction` and `scores`.
        path: PNG, SVG or PDF.
        title: Above it.

    Raises:
        MsekitError: No utterances, another ending, or matplotlib is not installed.
    """
    check_ending(path)
    if not records:
        raise MsekitError("there is nothing to plot")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise needs_extra("plots need matplotlib", "plot") from error
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    if isinstance(records[0]["prediction"], str):
        _shares(axes, records)
    else:
        _intensities(axes, records)
    axes.set(xlabel="seconds", title=title, xlim=(0, max(record["end"] for record in records)))
    figure.savefig(path, dpi=150)


def _shares(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    starts = [record["start"] for record in records]
    widths = [record["end"] - record["start"] for record in records]
    below = [0.0] * len(records)
    labels = list(records[0]["scores"])
    if len(labels) > _MOST_LABELS:  # the likeliest over all utterances; the rest stays white
        labels = sorted(labels, key=lambda label: -sum(record["scores"][label] for record in records))[:_MOST_LABELS]
    for label in labels:
        heights = [record["scores"][label] for record in records]
        axes.bar(starts, heights, widths, below, align="edge", label=label, linewidth=0)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set(ylabel="probability", ylim=(0, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _intensities(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    values = sorted(float(value) for value in records[0]["scores"])
    for record in records:
        low, high = (_quantile(record["scores"], share) for share in (0.25, 0.75))
        axes.fill_between([record["start"], record["end"]], low, high, alpha=0.25, color="tab:blue", linewidth=0)
        axes.plot([record["start"], record["end"]], [record["prediction"]] * 2, color="tab:blue")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(ylabel="intensity", ylim=(values[0], values[-1]))


def _quantile(scores: dict[str, float], share: float) -> float:
    """The first intensity at which so much of the probability lies at it or below."""
    total = 0.0
    ordered = sorted((float(value), probability) for value, probability in scores.items())
    for value, probability in ordered:
        total += probability
        if total >= share:
            return value
    return ordered[-1][0]

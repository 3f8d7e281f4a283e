"""The figures of the HTML report, each as an SVG text. matplotlib (extra `plot`) is imported on use.

Words in a figure stay words, which the browser draws with its own fonts: labels may be Chinese.

N samples, C classes, S seeds.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msekit.data.catalogue import DatasetSpec
from msekit.errors import needs_extra
from msekit.evaluation.metrics import higher_is_better
from msekit.evaluation.reliability import answers, calibration_error, reliability
from msekit.evaluation.units import axis as axis_of
from msekit.evaluation.units import percent
from msekit.runs.history import Epoch
from msekit.runs.predictions import Predictions

Array = NDArray[Any]
Svg = str
WIDTH, HEIGHT = 3.8, 2.8
"""Inches of a figure: about as wide as a phone's page, so that its words keep their size there."""
SMALL = 7.5
"""Points of the smallest words."""


@contextmanager
def _figure(width: float = WIDTH, height: float = HEIGHT) -> Iterator[tuple[Any, list[Svg]]]:
    """The axes of a figure that ends as SVG text in the yielded list.

    Raises:
        MsekitError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise needs_extra("the HTML report needs matplotlib", "plot") from error
    style = {"svg.fonttype": "none", "svg.hashsalt": "msekit", "font.size": 9, "axes.titlesize": 10}
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # only measured here, drawn by the browser
        figure = Figure(figsize=(width, height), layout="constrained")
        done: list[Svg] = []
        yield figure.subplots(), done
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        done.append(buffer.getvalue())


def loss_curves(histories: dict[int, list[Epoch]]) -> Svg:
    """Validation loss by epoch, train loss dashed; a colour per seed."""
    with _figure() as (axis, done):
        for seed, lines in histories.items():
            epochs = [line.epoch for line in lines]
            (drawn,) = axis.plot(epochs, [line.valid_loss for line in lines], label=f"seed {seed}", marker=".")
            axis.plot(epochs, [line.train_loss for line in lines], "--", color=drawn.get_color(), marker=".")
        axis.set(title="loss: validation, train dashed", xlabel="epoch")
        axis.locator_params(axis="x", integer=True, min_n_ticks=1)
        axis.legend(fontsize=SMALL)
    return done[0]


def metric_curves(histories: dict[int, list[Epoch]], key_metric: str) -> Svg:
    """The key metric on validation by epoch; a colour per seed, its best epoch ringed."""
    scale, unit = axis_of(key_metric)
    with _figure() as (axis, done):
        for seed, lines in histories.items():
            found = [line.valid.get(key_metric) for line in lines]
            values = [scale * value if isinstance(value, float) else math.nan for value in found]
            epochs = [line.epoch for line in lines]
            (drawn,) = axis.plot(epochs, values, marker=".", label=f"seed {seed}")
            best = [place for place, line in enumerate(lines) if line.best][-1]
            axis.plot(epochs[best], values[best], "o", fillstyle="none", markersize=10, color=drawn.get_color())
        axis.set(title=f"validation {key_metric}, best epoch ringed", xlabel="epoch", ylabel=unit)
        axis.locator_params(axis="x", integer=True, min_n_ticks=1)
        axis.legend(fontsize=SMALL)
    return done[0]


def confusion(seeds: list[Predictions], labels: tuple[str, ...], of: str = "") -> Svg:
    """True against predicted class, in percent of the true class, all seeds together."""
    counts_CC = np.zeros((len(labels), len(labels)))
    for seed in seeds:
        np.add.at(counts_CC, (seed.truth, seed.prediction), 1)
    shares_CC = counts_CC / counts_CC.sum(axis=1, keepdims=True).clip(min=1)
    with _figure(height=WIDTH + 0.2) as (axis, done):
        axis.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
        axis.set(title=f"{of}confusion, % of the true class", xlabel="predicted", ylabel="true")
        axis.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(labels)), labels)
        for (row, column), share in np.ndenumerate(shares_CC):
            colour = "white" if share > 0.5 else "black"
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=SMALL, color=colour)
    return done[0]


def scatter(seeds: list[Predictions], spec: DatasetSpec, of: str = "") -> Svg:
    """True against predicted intensity, a faint point per sample and seed."""
    assert spec.range is not None
    with _figure(height=WIDTH - 0.2) as (axis, done):
        for seed in seeds:
            axis.plot(seed.truth, seed.prediction, ".", alpha=0.35, markersize=4)
        axis.plot(spec.range, spec.range, color="grey", linewidth=0.8)
        low, high = spec.range
        limits = (low - 0.03 * (high - low), high + 0.03 * (high - low))
        axis.set(title=f"{of}intensity", xlabel="true", ylabel="predicted", xlim=limits, ylim=limits, aspect="equal")
    return done[0]


def reliability_diagram(seeds: list[Predictions], spec: DatasetSpec, of: str = "") -> Svg:
    """Accuracy against confidence, all seeds together, with the calibration error."""
    parts = [answers(seed.distribution, seed.values, seed.truth, spec) for seed in seeds]
    bins = reliability(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
    total = sum(group.samples for group in bins)
    with _figure() as (axis, done):
        axis.plot((0, 100), (0, 100), color="grey", linewidth=0.8)
        for group in bins:
            strength = 0.25 + 0.75 * group.samples / total
            middle = 100 * (group.low + group.high) / 2
            axis.bar(middle, 100 * group.accuracy, width=9, color="C0", alpha=strength)
        points = [(100 * group.confidence, 100 * group.accuracy) for group in bins]
        axis.plot(*zip(*points, strict=True), "o-", color="C3", markersize=4)
        what = "class" if spec.range is None else "positive or negative"
        title = f"{of}reliability ({what}), error {percent(calibration_error(bins))}"
        axis.set(title=title, xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 100))
    return done[0]


def class_f1(tables: list[dict[str, float | None]], of: str = "") -> Svg:
    """F1 of every class: the mean over the seeds in which it is defined, a dot per seed."""
    labels = list(tables[0])
    names = []
    with _figure(height=max(2.0, 0.3 * len(labels) + 0.8)) as (axis, done):
        for place, label in enumerate(labels):
            values = [100 * value for table in tables if (value := table.get(label)) is not None]
            names.append(label if values else f"{label} (undefined)")
            if values:
                axis.barh(place, float(np.mean(values)), color="C0", alpha=0.6)
            axis.plot(values, [place] * len(values), ".", color="black")
        axis.set_yticks(range(len(labels)), names)
        axis.invert_yaxis()
        axis.set(title=f"{of}F1 by class, %", xlim=(0, 100))
    return done[0]


def robustness(tests: dict[str, list[float]], metric: str) -> Svg:
    """The key metric as tested, with audio and vision shuffled, and with what is missing; a dot per seed."""
    scale, unit = axis_of(metric)
    with _figure(height=0.3 * len(tests) + 1) as (axis, done):
        for place, scores in enumerate(tests.values()):
            values = [scale * score for score in scores]
            axis.barh(place, float(np.mean(values)), color="C0" if place == 0 else "C1", alpha=0.6)
            axis.plot(values, [place] * len(values), ".", color="black")
        axis.set_yticks(range(len(tests)), list(tests))
        axis.invert_yaxis()
        better = "higher" if higher_is_better(metric) else "lower"
        axis.set(
            title=f"test {metric} with less to hear and see", xlabel=f"{unit}{', ' if unit else ''}{better} is better"
        )
    return done[0]

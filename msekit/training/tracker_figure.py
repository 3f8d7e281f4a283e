"""The test answers as a picture for trackers: a table of classes, or true against predicted intensities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from msekit.runs.description import read_spec_of
from msekit.runs.predictions import read_predictions


def answers_figure(folder: Path) -> np.ndarray | None:
    """Rows, columns and RGB of a picture, 8 bit; None where matplotlib (extra `plot`) is not installed, or where there
    are several targets, which are no one picture."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    spec = read_spec_of(folder)
    if spec.targets:
        return None
    answers = read_predictions(folder, spec)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    if spec.labels:
        _classes(axis, answers.truth, answers.prediction, len(spec.labels))
    else:
        axis.plot(answers.truth, answers.prediction, ".")
    axis.set_xlabel("predicted" if spec.labels else "true")
    axis.set_ylabel("true" if spec.labels else "predicted")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _classes(axis: Any, truth: np.ndarray, prediction: np.ndarray, classes: int) -> None:
    """How often each class (row, by its number) is taken for each (column)."""
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (truth, prediction), 1)
    axis.imshow(counts, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        axis.text(column, row, str(counts[row, column]), ha="center", va="center")
    axis.set_xticks(range(classes))
    axis.set_yticks(range(classes))

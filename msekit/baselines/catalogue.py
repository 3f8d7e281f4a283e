"""BASELINES: the models without an LLM. Adding one is one entry here and its class in `models.py`. No torch."""

from __future__ import annotations

BASELINES: dict[str, str | None] = {
    "text-linear": None,
    "ef-lstm": "EarlyFusion",
    "lf-lstm": "LateFusion",
    "tfn": "TensorFusion",
    "lmf": "LowRankFusion",
}
"""Name → class in `models.py`, made from (vocabulary, widths, outputs); None for the linear model of the text alone,
which is no network (`text_linear.py`)."""

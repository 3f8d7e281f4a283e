"""The figure of docs/hidden-states.md: how well a linear model reads each layer of the frozen LLM, on validation.

    python -m benchmarks.accuracy.layers_figure

From the kept reports of `msekit baseline llm-linear` in benchmarks/results/llm_linear/; needs no data and no LLM.
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

RESULTS = Path(__file__).parents[1] / "results" / "llm_linear"
TARGET = Path(__file__).parents[2] / "docs" / "figures" / "layers.svg"
SHOWN = {"mosi_utt": ("MAE, lower is better", 1.0), "meld6": ("WF1, %, higher is better", 100.0)}


def main() -> None:
    """Write the SVG."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    for axis, (name, (unit, scale)) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
        report = json.loads((RESULTS / f"{name}-smollm2-135m.json").read_text(encoding="utf-8"))
        by_layer = {int(layer): scale * value for layer, value in report["valid_by_layer"].items()}
        axis.plot(list(by_layer), list(by_layer.values()), "o-")
        axis.plot(report["layer"], by_layer[report["layer"]], "o", color="C1", markersize=9, label="chosen")
        axis.set(title=name, xlabel="layer (0: embeddings)", ylabel=unit)
        axis.legend()
    TARGET.parent.mkdir(exist_ok=True)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "msekit"}):  # words stay words, the file the same
        figure.savefig(TARGET, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

"""The learning curves of docs/hidden-states.md: recipes `paper`, `kit` and `best` on one data set, on validation.

    python -m benchmarks.accuracy.learning_curves [--data ../shared/data --output runs/curves]

Without --data it draws from the kept histories in benchmarks/results/learning_curves/; with it, histories that are not
kept yet are made first: one seed of each recipe on ravdess, four epochs with SmolLM2-135M (about 35 core-minutes).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

RESULTS = Path(__file__).parents[1] / "results" / "learning_curves"
TARGET = Path(__file__).parents[2] / "docs" / "figures" / "learning_curves.svg"
RECIPES = ("paper", "kit", "best")
EPOCHS, SEED = 4, 1111


def make(recipe: str, data: Path, output: Path) -> None:
    """Train one recipe, or go on with it, and keep its history."""
    kept = RESULTS / f"ravdess-{recipe}.jsonl"
    if kept.is_file():
        return
    folder = output / f"ravdess-{recipe}"
    train = [sys.executable, "-m", "msekit", "train", "--backbone", "smollm2-135m", "--recipe", recipe, "--resume"]
    of_run = ["--dataset", str(data / "ravdess" / "ravdess.yaml"), "--epochs", str(EPOCHS), "--seeds", str(SEED)]
    subprocess.run([*train, *of_run, "--output", str(folder)], check=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / f"seed-{SEED}" / "metrics.jsonl", kept)


def draw() -> None:
    """Write the SVG."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for number, recipe in enumerate(RECIPES):
        lines = (RESULTS / f"ravdess-{recipe}.jsonl").read_text(encoding="utf-8").splitlines()
        history = [json.loads(line) for line in lines]
        epochs = [line["epoch"] for line in history]
        accuracy.plot(epochs, [100 * line["valid"]["acc"] for line in history], "o-", color=f"C{number}", label=recipe)
        loss.plot(epochs, [line["valid_loss"] for line in history], "o-", color=f"C{number}")
    accuracy.set(title="ravdess", xlabel="epoch with the LLM", ylabel="accuracy, %", ylim=(0, 100))
    accuracy.set(xticks=range(1, EPOCHS + 1))
    loss.set(title="ravdess", xlabel="epoch with the LLM", ylabel="loss", xticks=range(1, EPOCHS + 1))
    accuracy.legend(loc="upper center", ncols=len(RECIPES))
    TARGET.parent.mkdir(exist_ok=True)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "msekit"}):  # words stay words, the file the same
        figure.savefig(TARGET, format="svg", metadata={"Date": None})


def main() -> None:
    """Make what is not kept, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/curves"))
    options = parser.parse_args()
    if options.data is not None:
        for recipe in RECIPES:
            make(recipe, options.data, options.output)
    draw()


if __name__ == "__main__":
    main()

"""How well does a run do when a modality is missing? synthetic-erc on the tiny random backbone, minutes on a CPU.

    python -m benchmarks.accuracy.missing --output runs/missing [--seeds 1 2]

On this set the best accuracy is known: 1 with audio and vision, .5 with one of them, .25 with the text alone.
Trained on complete samples, with and without modality dropout, then tested as it is and with modalities withheld.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from msekit.reporter import Reporter
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.studies.evaluate import evaluate
from msekit.training.loop import train

SETTINGS = {
    "zero": ("data.on_missing=zero",),
    "zero, dropout .3": ("data.on_missing=zero", "data.modality_dropout=0.3"),
    "learned, dropout .3": ("data.on_missing=learned", "data.modality_dropout=0.3"),
}
TESTS = {"complete": (), "without audio": ("audio",), "without vision": ("vision",), "text": ("audio", "vision")}
SHARED = ("optim.epochs=8", "optim.lr=5e-3", "evaluation.bootstrap=0")


def main() -> None:
    """Train what is missing, test it, print a Markdown table of accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/missing"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    reporter = Reporter(quiet=True)
    print(f"| synthetic-erc, acc | {' | '.join(TESTS)} |\n|---|" + "---|" * len(TESTS), flush=True)
    for name, settings in SETTINGS.items():
        output = options.output / name.replace(", ", "-").replace(" ", "")
        request = RunRequest("tiny-llama", "synthetic-erc", output=output, seeds=tuple(options.seeds))
        runs, _ = plan_runs(replace(request, overrides=(*SHARED, *settings)))
        for run in runs:
            train(run, resume=True, reporter=reporter)
        cells = []
        for without in TESTS.values():
            found = [evaluate(run.output, without=without, reporter=reporter)["metrics"]["acc"] for run in runs]
            cells.append(f"{statistics.fmean(found):.3f} ({', '.join(f'{acc:.3f}' for acc in found)})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Start-up: `--help`, and the way of a cached run to the end of its first step.

    python -m benchmarks.speed.startup --dataset ../shared/data/meld6/meld6.yaml [--backbone smollm2-135m] [--rounds 3]

Backbone and data set are in the cache already (the first round puts them there and is thrown away). Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.speed.measure import spread


class FirstStepDone(Exception):  # noqa: N818 - not an error
    """Ends the measured run."""


def to_first_step(backbone: str, dataset: str) -> None:
    """Run `msekit train` until one step is done; print when, and how long the backbone took."""
    import msekit.training.build as build
    from msekit.cli.main import app
    from msekit.training.loop import Run

    load, step = build.load_backbone, Run.step
    taken = {}

    def timed_load(*args: object, **kwargs: object) -> object:
        began = time.time()
        loaded = load(*args, **kwargs)  # type: ignore[arg-type]
        taken["load"] = time.time() - began
        return loaded

    def timed_step(self: Run, *arguments: object) -> tuple[float, bool, bool]:
        began = time.time()
        step(self, *arguments)  # type: ignore[arg-type]
        taken["step"] = time.time() - began
        raise FirstStepDone

    build.load_backbone, Run.step = timed_load, timed_step  # type: ignore[assignment, method-assign]
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["train", "--backbone", backbone, "--dataset", dataset, "--output", f"{folder}/run"]
        try:
            app(arguments, standalone_mode=False)
        except FirstStepDone:
            print(json.dumps(taken | {"all": time.time() - float(os.environ["STARTED"])}))


def measure(command: list[str]) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    started = time.time()
    environment = os.environ | {"STARTED": str(started)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return time.time() - started, done.stdout


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="../shared/data/meld6/meld6.yaml")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        to_first_step(options.backbone, options.dataset)
        return
    child = [sys.executable, "-m", "benchmarks.speed.startup", "--child", "--dataset", options.dataset]
    child += ["--backbone", options.backbone]
    helps, loads, steps, rests = [], [], [], []
    for number in range(options.rounds + 1):
        seconds = measure([sys.executable, "-m", "msekit", "train", "--help"])[0]
        taken = json.loads(measure(child)[1].splitlines()[-1])
        if number:
            helps.append(seconds)
            loads.append(taken["load"])
            steps.append(taken["step"])
            rests.append(taken["all"] - taken["load"] - taken["step"])
    print("| start-up, s | median (range) |\n|---|---|")
    print(f"| `msekit train --help` | {spread(helps)} |")
    print(f"| cached run: loading {options.backbone} | {spread(loads)} |")
    print(f"| cached run: all else before the first step | {spread(rests)} |")
    print(f"| cached run: the first step | {spread(steps)} |")


if __name__ == "__main__":
    main()

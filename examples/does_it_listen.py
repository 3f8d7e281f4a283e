"""Does it listen? A trained run with each modality withheld, and shuffled between samples.

A score that stays when audio is shuffled was never heard. Numbers come from `robustness.json`, the picture needs
`pip install "msekit[plot]"`.

    python examples/does_it_listen.py --backbone smollm2-135m
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure

parser = argparse.ArgumentParser()
parser.add_argument("--backbone", default="smollm2-135m", help="tiny-llama takes seconds, and shows the way alone")
parser.add_argument("--folder", type=Path, default=Path("does-it-listen"))
given, more = parser.parse_known_args()  # any other option goes to `msekit train`


def msekit(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "msekit", *map(str, words)], check=True)


data, run = given.folder / "moods", given.folder / "run"
msekit("data", "example", "moods", "--output", data)
msekit("train", "--backbone", given.backbone, "--dataset", data / "moods.yaml", "--output", run, *more)
msekit("evaluate", run, "--robustness")

cases = json.loads((run / "seed-1111" / "robustness.json").read_text(encoding="utf-8"))["metrics"]
accuracies = {case: metrics["acc"] for case, metrics in cases.items()}
for case, accuracy in accuracies.items():
    print(f"{case:20} {100 * accuracy:5.1f} %")

figure = Figure(figsize=(6, 0.4 * len(accuracies) + 1), layout="constrained")
axis = figure.subplots()
axis.barh(list(accuracies), list(accuracies.values()))
axis.axvline(0.25, color="grey", linestyle=":")  # what the text alone is worth on this set
axis.invert_yaxis()
axis.set(xlabel="accuracy on test", xlim=(0, 1))
figure.savefig(given.folder / "does-it-listen.png")

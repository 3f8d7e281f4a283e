"""Two plug-ins on one LLM: an emotion and an intensity, and the LLM as it was.

The LLM is loaded once. Each plug-in is a few megabytes, may be used from any thread, and leaves the LLM as it is.

    python examples/two_plug_ins.py --backbone smollm2-135m
"""

import argparse
import subprocess
import sys
from pathlib import Path

import msekit

parser = argparse.ArgumentParser()
parser.add_argument("--backbone", default="smollm2-135m", help="tiny-llama takes seconds, and shows the way alone")
parser.add_argument("--folder", type=Path, default=Path("two-plug-ins"))
given, more = parser.parse_known_args()  # any other option goes to `msekit train`


def command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "msekit", *map(str, words)], check=True)


for name in ("moods", "opinions"):
    data, run = given.folder / name, given.folder / f"run-{name}"
    command("data", "example", name, "--output", data)
    command("train", "--backbone", given.backbone, "--dataset", data / f"{name}.yaml", "--output", run, *more)

host = msekit.PlugInHost(given.backbone)
before = host.generate("The capital of France is", max_new_tokens=8)
for name in ("moods", "opinions"):
    host.add(name, given.folder / f"run-{name}")
    features = {kind: given.folder / name / kind / "test-000000.npy" for kind in ("audio", "vision")}
    answer = host.predict(name, "So you are leaving tomorrow.", **features)
    print(f"{name}: {answer.prediction}")
assert host.generate("The capital of France is", max_new_tokens=8) == before
print("the LLM writes what it wrote before")

"""A data set from scratch: features of your own, trained on, asked with and without its sound.

Whatever makes your features ends in `np.save`; a line of `samples.jsonl` says what was said, and the label.

    python examples/a_set_from_scratch.py --backbone smollm2-135m
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import msekit

parser = argparse.ArgumentParser()
parser.add_argument("--backbone", default="smollm2-135m", help="tiny-llama takes seconds, and shows the way alone")
parser.add_argument("--folder", type=Path, default=Path("from-scratch"))
given, more = parser.parse_known_args()  # any other option goes to `msekit train`

data = given.folder / "voices"
(data / "audio").mkdir(parents=True)
rng = np.random.default_rng(0)
with open(data / "samples.jsonl", "w", encoding="utf-8") as lines:
    for number in range(240):
        loud = number % 2
        frames = rng.normal(1.5 * loud, 1.0, size=(rng.integers(20, 60), 8))  # what your extractor gives
        np.save(data / "audio" / f"clip{number}.npy", frames.astype(np.float32))
        sample = {
            "id": f"clip{number}",
            "text": "Well, here we are.",
            "label": ("calm", "excited")[loud],
            "split": ("train", "train", "train", "valid", "test")[number // 2 % 5],
        }
        lines.write(json.dumps(sample) + "\n")

run = given.folder / "run"
command = [sys.executable, "-m", "msekit", "train", "--backbone", given.backbone, "--output", str(run)]
command += ["--dataset", "voices", "--source", str(data), "--labels", "calm,excited", *more]
subprocess.run(command, check=True)

plug_in = msekit.load_run(run)
for clip, truth in (("clip8.npy", "calm"), ("clip9.npy", "excited")):
    heard = plug_in.predict("Well, here we are.", audio=data / "audio" / clip)
    unheard = plug_in.predict("Well, here we are.")
    print(f"{truth}: heard {heard.prediction} ({heard.scores[truth]:.2f}), by text alone {unheard.scores[truth]:.2f}")

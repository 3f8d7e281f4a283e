"""The rivals of Tables 2 and 3 on meld6, ravdess and mosi_utt, on one footing: same cache, splits, text, selection.

    python -m benchmarks.accuracy.rivals --data ../shared/data                # what is missing, resumed
    python -m benchmarks.accuracy.rivals --data ../shared/data --only meld6 --seeds 1111
    python -m benchmarks.accuracy.rivals --data ../shared/data --report       # what is finished

One process, one thread; `msekit baseline all` per set. Networks read the hidden states of --backbone (none: words).
Run folders lie in --output; the table of all systems, as far as it is finished, is printed as Markdown and written to
results/rivals/SET.json. It has the shuffled score, parameters and minutes a run, and a dash with its reason where a set
cannot serve a system.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from msekit.baselines.catalogue import BASELINES
from msekit.baselines.texts import TextFrom
from msekit.data.catalogue import resolve_dataset
from msekit.errors import MsekitError
from msekit.experiments.baseline_table import Request, document_of, markdown, run_all
from msekit.reporter import Reporter

SETS = ("meld6", "ravdess", "mosi_utt")
SEEDS = (1111, 2222, 3333)
RESULTS = Path(__file__).parents[1] / "results" / "rivals"


def main() -> None:
    """Run what is missing of every set, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--only", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--systems", nargs="*", default=tuple(BASELINES), help="names of baselines")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--backbone", default="smollm2-135m", help="'none' for words")
    parser.add_argument("--context", type=int, default=0, help="earlier utterances that the LLM reads before a text")
    parser.add_argument("--text-limit", type=int, help="longest text with its context, in tokens")
    parser.add_argument("--output", type=Path, default=Path("runs/rivals"))
    parser.add_argument("--report", action="store_true", help="run nothing")
    given = parser.parse_args()
    before = {"context": given.context, "limit": given.text_limit}
    text = TextFrom() if given.backbone == "none" else TextFrom("backbone", given.backbone, **before)
    seeds = tuple(int(seed) for seed in given.seeds.split(","))
    reporter = Reporter()
    for name in given.only:
        spec = resolve_dataset(str(given.data / name / f"{name}.yaml"))
        request = Request(tuple(given.systems), spec, text, seeds)
        document = document_of(request, run_all(request, given.output.resolve(), reporter, run=not given.report))
        if len(request.names) == len(BASELINES) and any(row["metrics"] for row in document["rows"]):
            RESULTS.mkdir(parents=True, exist_ok=True)
            file = f"{name}-context{given.context}" if given.context else name
            (RESULTS / f"{file}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"### {name}\n\n{markdown(document)}")


if __name__ == "__main__":
    try:
        main()
    except MsekitError as error:
        sys.exit(f"{error}")

"""Mutants of every file that the kit reads, of bytes and of structure: what each reader makes of them.

    python -m benchmarks.damage.mutants --files 3000 [--readers "report.json;predictions"] [--seed 1]

Each is tried in a forked child, with ten seconds and a gigabyte. The mutants of a seed are always the same ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

for key, value in {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(key, value)
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))

from attacked import readers  # type: ignore[import-not-found] # noqa: E402 - the helpers of the tests
from mutants import FAILED, try_mutants  # type: ignore[import-not-found] # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from msekit.cli.main import app  # noqa: E402

OUTCOMES = ("refused", "read", "told", "lawful", *FAILED)
_PART = 100  # mutants of one child


def main() -> None:
    """Try them, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3000, help="of all readers together")
    parser.add_argument("--first", type=int, default=0, help="number of the first one of each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--readers", help="names with ; between them; all of them if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MSEKIT_CACHE"] = f"{folder}/cache"
        run = _trained(Path(folder) / "run")
        (place := Path(folder) / "files").mkdir()
        every = readers(place, run)
        names = options.readers.split(";") if options.readers else [reader.name for reader in every]
        chosen = [reader for reader in every if reader.name in names]
        each, started, total, peak = -(-options.files // len(chosen)), time.monotonic(), Counter[str](), 0
        _say(f"| file | {' | '.join(OUTCOMES)} |", "|---|" + "---:|" * len(OUTCOMES))
        for reader in chosen:
            numbers = range(options.first, options.first + each)
            tried = [
                one
                for at in range(0, each, _PART)
                for one in try_mutants(reader, numbers[at : at + _PART], options.seed)
            ]
            counts = Counter(one.outcome for one in tried)
            total, peak = total + counts, max(peak, *(one.grown for one in tried))
            _say(f"| {reader.name} | {' | '.join(str(counts[outcome] or '') for outcome in OUTCOMES)} |")
            for one in tried:
                if one.outcome in FAILED:
                    sys.stderr.write(f"{one}\n")
        _say(f"| all {total.total()} | {' | '.join(str(total[outcome]) for outcome in OUTCOMES)} |", "")
        _say(f"{time.monotonic() - started:.0f} s; the most that one mutant added: {peak / 1e6:.0f} MB")


def _trained(folder: Path) -> Path:
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--limit-train", "64"]
    arguments += ["--epochs", "1", "--set", "evaluation.bootstrap=20", "--output", str(folder)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder / "seed-1111"


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    main()

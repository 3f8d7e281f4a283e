"""Throughput of `predict` beside evaluation's, in one run, alternating; and the latency of one sample.

    python -m benchmarks.speed.predict_speed runs/meld6-smollm2-135m --rows 320 --rounds 3

Both score the same rows of the run's test split with the same adapter on the same loaded backbone. Evaluation reads
the Arrow cache (`score_split`); predict reads a JSON-lines file with the features inline (`predict_file`), and the same
rows as arrays through `PlugIn.predict`. Ratios are of medians over the rounds, of wall time and of processor time,
which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from msekit.data.batches.batch import Collator
from msekit.data.open_data import open_data
from msekit.distributed.accelerator import accelerator_for
from msekit.evaluation.scoring import score_split
from msekit.inference.jsonl import predict_file
from msekit.inference.load import load_run
from msekit.reporter import Reporter
from msekit.runs.config import read_config
from msekit.runs.folder import find_run
from msekit.settings.data_of import spec_of
from msekit.training.build import encode_texts


class FirstRows:
    """The first rows of a split."""

    texts: list[str]

    def __init__(self, table: object, rows: int) -> None:
        self._table, self._rows = table, min(rows, len(table))  # type: ignore[arg-type]
        for name in ("ids", "texts", "speakers", "dialogues", "labels", "audio_lengths", "vision_lengths"):
            setattr(self, name, getattr(table, name)[: self._rows])
        self.audio, self.vision = table.audio, table.vision  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return self._rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    folder, reporter = find_run(options.run), Reporter(quiet=True)
    config = read_config(folder)
    plug_in = load_run(folder)
    _, cache = open_data(spec_of(config), config.data.dtype, reporter)
    table = FirstRows(cache.split("test"), options.rows)
    rows = [(table.texts[i], present(table.audio(i)), present(table.vision(i))) for i in range(len(table))]
    accelerator = accelerator_for(plug_in.backbone.device)

    def evaluation() -> np.ndarray:
        ways = plug_in.description.features
        texts, _ = encode_texts(table, plug_in.backbone, plug_in.description.text_limit)  # type: ignore[arg-type]
        labels = np.zeros(len(table), np.int64)
        collator = Collator(table, texts, labels, ways["audio"], ways["vision"])  # type: ignore[arg-type]
        scores = score_split(plug_in.model, collator, options.batch_size, accelerator, reporter, "test")
        return scores.labels.distribution(scores.edges)

    def arrays() -> np.ndarray:
        answers = plug_in.predict(*map(list, zip(*rows, strict=True)), batch_size=options.batch_size)
        return np.array([list(answer.scores.values()) for answer in answers])

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.jsonl"
        file.write_text("".join(json.dumps(line(*row)) + "\n" for row in rows), encoding="utf-8")

        def lines() -> np.ndarray:
            answers: list[list[float]] = []
            predict_file(
                plug_in,
                file,
                lambda answer: answers.append(list(answer.scores.values())),
                complain=lambda number, what: None,
                batch_size=options.batch_size,
            )
            return np.array(answers)

        ways = {"evaluation": evaluation, "predict, arrays": arrays, "predict, JSON lines": lines}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        processor: dict[str, list[float]] = {name: [] for name in ways}
        reference = evaluation()  # also warms up
        for _ in range(options.rounds):
            for name, way in ways.items():
                start, start_processor = time.perf_counter(), time.process_time()
                scores = way()
                seconds[name].append(time.perf_counter() - start)
                processor[name].append(time.process_time() - start_processor)
                assert np.abs(scores - reference).max() < 1e-5, name
    base, base_processor = (statistics.median(times["evaluation"]) for times in (seconds, processor))
    print(f"{folder.name}: {len(table)} rows, batch {options.batch_size}, {options.rounds} rounds, alternating")
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{len(table) / max(times):.1f} … {len(table) / min(times):.1f}"
        ratio = (
            f"ratio {base / median:.3f}, of processor time {base_processor / statistics.median(processor[name]):.3f}"
        )
        print(f"{name:22} {len(table) / median:7.1f} samples/s ({spread})   {ratio}")
    latency = sorted(one(plug_in, row) for row in rows[:30])
    print(f"one sample: median {statistics.median(latency) * 1e3:.0f} ms, 90th percentile {latency[26] * 1e3:.0f} ms")


def present(frames_LD: np.ndarray) -> np.ndarray | None:
    """None for a modality that the sample lacks."""
    return frames_LD if len(frames_LD) else None


def line(text: str, audio: np.ndarray | None, vision: np.ndarray | None) -> dict[str, object]:
    """A line of the input file."""
    features = {"audio": audio, "vision": vision}
    return {"text": text} | {key: frames.tolist() for key, frames in features.items() if frames is not None}


def one(plug_in: object, row: tuple[str, np.ndarray | None, np.ndarray | None]) -> float:
    """Seconds for a single sample."""
    start = time.perf_counter()
    plug_in.predict(*row)  # type: ignore[attr-defined]
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

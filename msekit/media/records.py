"""What an extraction leaves on record: its plan, and a result per clip, so that it can go on where it was stopped."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from msekit.data.catalogue import MODALITIES
from msekit.data.extractor import Extractor
from msekit.errors import MsekitError
from msekit.json_file import parse_json
from msekit.media.table import Clip

LOG = "extract.jsonl"


@dataclass(frozen=True)
class Shard:
    """One of several processes that share a folder of clips."""

    number: int
    """From 0."""
    count: int

    def of(self, clips: list[Clip]) -> list[Clip]:
        """Its share of the clips."""
        return clips[self.number :: self.count]


@dataclass(frozen=True)
class ExtractionPlan:
    """The extractors for every clip; None for a modality that is not extracted."""

    audio: Extractor | None
    vision: Extractor | None

    def record(self) -> dict[str, Any]:
        """The plan as JSON, the first line of `extract.jsonl`."""
        return {key: extractor and extractor.record() for key, extractor in self.of_modalities.items()}

    def is_of(self, record: dict[str, Any] | None) -> bool:
        """Whether a record is of a plan that makes the same features."""
        try:
            there = {key: record and record[key] and Extractor(**record[key]) for key in MODALITIES}
        except (KeyError, TypeError, ValueError):
            return False
        pairs = [(there[key], extractor) for key, extractor in self.of_modalities.items()]
        return record is not None and all(a.makes_the_same(b) if a and b else a is b for a, b in pairs)

    @property
    def of_modalities(self) -> dict[str, Extractor | None]:
        """Modality → extractor."""
        return {"audio": self.audio, "vision": self.vision}

    @property
    def encoders(self) -> dict[str, Extractor]:
        """Those that are pretrained models, which this process computes in batches."""
        return {key: extractor for key, extractor in self.of_modalities.items() if extractor and extractor.is_encoder}

    @property
    def for_the_pool(self) -> ExtractionPlan:
        """The plan without encoders: what every process can do for itself."""
        audio, vision = (
            extractor if key not in self.encoders else None for key, extractor in self.of_modalities.items()
        )
        return ExtractionPlan(audio, vision)


@dataclass
class ClipResult:
    """The result of one clip."""

    id: str
    stamp: list[int]
    """Size and time of change of the clip."""
    frames: dict[str, int] = field(default_factory=dict)
    """Modality → feature vectors written."""
    problems: dict[str, str] = field(default_factory=dict)
    """Modality → why it has no feature vectors."""


def log_of(output: Path, shard: Shard | None) -> Path:
    """Where a process writes its results: shards of one folder have a log each."""
    return output / (LOG if shard is None else f"extract-{shard.number}-of-{shard.count}.jsonl")


def finished(output: Path, plan: ExtractionPlan, shard: Shard | None) -> dict[str, ClipResult]:
    """The results on record in every log of the folder, by the clips' ids; our own log gets the first line, the plan.

    Raises:
        MsekitError: A log is of other extractors.
    """
    own = log_of(output, shard)
    if not own.is_file() or not own.stat().st_size:
        _write(own, [plan.record()])
    results: dict[str, ClipResult] = {}
    for log in sorted(output.glob("extract*.jsonl")):
        content = log.read_bytes()
        if not content:  # of another process, which was ended before it said anything
            continue
        first, *lines = content.decode("utf-8", "replace").splitlines()
        if not plan.is_of(parsed(first)):
            raise MsekitError(
                "the folder holds features by other extractors or settings",
                where=output,
                fix="Choose another --output.",
            )
        found = [result for line in lines if (result := result_of(line))]  # the last line may be half written
        if log == own and lines and not content.endswith(b"\n"):
            _write(log, [plan.record(), *map(asdict, found)])
        results |= {result.id: result for result in found}
    return results


def _write(log: Path, records: list[dict[str, Any]]) -> None:
    """Write a log whole or not at all: other shards read it at any time."""
    partial = log.with_name(f".{log.name}.{os.getpid()}.partial")
    partial.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    os.replace(partial, log)


def parsed(line: str) -> dict[str, Any] | None:
    """A line of a log; None for one that is only half there."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def result_of(line: str) -> ClipResult | None:
    """The result in a line; None for a damaged one, whose clip is extracted again."""
    try:
        result = TypeAdapter(ClipResult).validate_python(parsed(line))
    except ValidationError:
        return None
    return result if set(result.frames) <= set(MODALITIES) else None


def holds(result: ClipResult | None, clip: Clip) -> bool:
    """Whether a result on record is of this very clip and can stay: a clip that gave no features is tried again."""
    return result is not None and bool(result.frames) and result.stamp == stamp_of(clip.path)


def stamp_of(path: Path) -> list[int]:
    """Size and time of change of a file; nothing where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def array_script(arguments: list[str], count: int, output: Path, folder: Path) -> str:
    """A SLURM script that extracts in shards; a task that is run again goes on where it was.

    Args:
        arguments: Of the command, `--slurm` among them.
        count: Shards.
        output: Where the features go.
        folder: Where the command was given.
    """
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != "--slurm" and not argument.startswith("--slurm="):
            kept.append(argument)
        skip = argument == "--slurm"
    return f"""#!/usr/bin/env bash
# {count} shards. When all are done, the command without --shard joins them.
#SBATCH --job-name=msekit-extract
#SBATCH --array=0-{count - 1}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output={output}/slurm-%A-%a.log
cd {shlex.quote(str(folder))}
srun {shlex.quote(sys.executable)} -m msekit {shlex.join(kept)} --shard "$SLURM_ARRAY_TASK_ID/{count}"
"""

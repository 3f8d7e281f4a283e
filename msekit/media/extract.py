"""`extract`: clips → a data set of one's own: feature files, `samples.jsonl` and a YAML that `msekit train` reads.

    <output>/audio/<id>.safetensors  vision/<id>.safetensors  samples.jsonl  <name>.yaml  extract.jsonl

`extract.jsonl` has a line per finished clip. A clip that stands there and has not changed since is not extracted again,
so a stopped extraction goes on where it was. A clip that cannot be read never stops the others.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from msekit.data.catalogue import MODALITIES
from msekit.data.extractor import Extractor
from msekit.errors import MsekitError
from msekit.json_file import parse_json
from msekit.media.table import Clip
from msekit.paths import on_disk
from msekit.reporter import Reporter

LOG = "extract.jsonl"
SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class ExtractionPlan:
    """The extractors for every clip; None for a modality that is not extracted."""

    audio: Extractor | None
    vision: Extractor | None

    def record(self) -> dict[str, Any]:
        """The plan as JSON, the first line of `extract.jsonl`."""
        return {"audio": self.audio and self.audio.model_dump(), "vision": self.vision and self.vision.model_dump()}


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


def extract(
    clips: Sequence[Clip], plan: ExtractionPlan, output: Path, workers: int, reporter: Reporter
) -> list[ClipResult]:
    """Extract all clips that are not extracted yet.

    Args:
        clips: The clips.
        plan: The extractors.
        output: Folder for the data set; it may hold an unfinished extraction with the same plan.
        workers: Processes.
        reporter: Where progress goes.

    Returns:
        A result per clip, in their order.

    Raises:
        MsekitError: The folder holds an extraction by other extractors, or cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        done = _finished(output, plan)
        results = {clip.id: done[clip.id] for clip in clips if _holds(done.get(clip.id), clip)}
        todo = [clip for clip in clips if clip.id not in results]
        if results:
            reporter.note(f"{len(results)} clips are extracted already")
        with (
            (output / LOG).open("a", encoding="utf-8") as log,
            reporter.bar("extracting", len(clips), len(results)) as advance,
        ):
            for result in _all(todo, plan, output, workers):
                results[result.id] = result
                log.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
                log.flush()
                advance(1)
                for modality, problem in result.problems.items():
                    reporter.warn(f"{result.id}: no {modality}: {problem}")
    except OSError as error:
        raise MsekitError(f"the output folder cannot be written: {error}", where=output) from error
    return [results[clip.id] for clip in clips]


def _finished(output: Path, plan: ExtractionPlan) -> dict[str, ClipResult]:
    """The results on record, by the clips' ids; a folder without a record gets the first line, the plan."""
    log = output / LOG
    if not log.is_file():
        log.write_text(json.dumps(plan.record()) + "\n", encoding="utf-8")
        return {}
    first, *lines = log.read_bytes().decode("utf-8", "replace").splitlines() or [""]
    if _parsed(first) != plan.record():
        raise MsekitError(
            "the folder holds features by other extractors or settings", where=output, fix="Choose another --output."
        )
    results = [result for line in lines if (result := _result_of(line))]  # the last line may be half written
    if lines and not log.read_bytes().endswith(b"\n"):
        records = [plan.record(), *map(asdict, results)]
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        log.write_text(text, encoding="utf-8")
    return {result.id: result for result in results}


def _parsed(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None


def _result_of(line: str) -> ClipResult | None:
    """The result in a line; None for a damaged one, whose clip is extracted again."""
    try:
        result = TypeAdapter(ClipResult).validate_python(_parsed(line))
    except ValidationError:
        return None
    return result if set(result.frames) <= set(MODALITIES) else None


def _holds(result: ClipResult | None, clip: Clip) -> bool:
    """Whether a result on record is of this very clip and can stay: a clip that gave no features is tried again."""
    return result is not None and bool(result.frames) and result.stamp == _stamp(clip.path)


def _stamp(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _all(clips: Sequence[Clip], plan: ExtractionPlan, output: Path, workers: int) -> Iterator[ClipResult]:
    """Yield results as they come.

    A clip that kills its process breaks the pool, and every clip that ran there is lost with it. Each lost clip then
    gets a pool of its own, which shows the culprit; the clips after them go on in a new pool.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(clips))
    lost: list[Clip] = []
    running: dict[Future[ClipResult], Clip] = {}
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        while running or (waiting and not lost):
            while waiting and len(running) < 2 * workers and not lost:
                clip = waiting.pop()
                try:
                    running[pool.submit(extract_one, clip, plan, output)] = clip
                except BrokenProcessPool:
                    lost.append(clip)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                clip = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    lost.append(clip)
    for clip in lost:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                yield pool.submit(extract_one, clip, plan, output).result()
            except BrokenProcessPool:
                problem = "the process that read it died"
                yield ClipResult(clip.id, _stamp(clip.path), problems=dict.fromkeys(MODALITIES, problem))
    if waiting:
        yield from _all(list(reversed(waiting)), plan, output, workers)


def extract_one(clip: Clip, plan: ExtractionPlan, output: Path) -> ClipResult:
    """Extract one clip into its feature files, each written whole or not at all."""
    result = ClipResult(clip.id, _stamp(clip.path))
    for modality, extractor in zip(MODALITIES, (plan.audio, plan.vision), strict=True):
        if extractor is None:
            continue
        try:
            features_LD = features_of(clip.path, modality, extractor)
        except MsekitError as error:
            result.problems[modality] = error.what
            continue
        write_features(output / modality / f"{clip.id}.safetensors", modality, features_LD, extractor)
        result.frames[modality] = len(features_LD)
    return result


def features_of(path: Path, modality: str, extractor: Extractor) -> Any:
    """Extract one modality of one clip: (L, D) float32.

    Raises:
        MsekitError: The clip cannot be decoded or lacks the modality, or the extractor here is another release.
    """
    from msekit.media import audio, decode, vision

    if modality == "audio":
        here = audio.audio_extractor(extractor.name)
    elif extractor.name == vision.EXTRACTOR:
        here = vision.vision_extractor(extractor.settings["face"])
    else:
        raise MsekitError(f"there is no extractor '{extractor.name}' for {modality}")
    if here != extractor:
        raise MsekitError(f"features of {extractor} are wanted, the extractor here is {here}", where=path)
    try:
        if modality == "audio":
            return audio.audio_features(decode.sound(path), extractor.name)
        pictures = decode.pictures(path, vision.PICTURES_PER_SECOND)
        return vision.vision_features(pictures, extractor.settings["face"])
    except MsekitError as error:
        raise MsekitError(error.what, where=path, fix=error.fix) from None


def write_features(path: Path, modality: str, features_LD: Any, extractor: Extractor) -> None:
    """Write a feature file that carries the record of its extractor."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({modality: features_LD}, partial, metadata={"extractor": extractor.model_dump_json()})
    on_disk(partial)
    os.replace(partial, path)


def extractor_of(path: Path) -> Extractor | None:
    """The extractor on record in a feature file; None for files from elsewhere."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="np") as file:
            record = (file.metadata() or {}).get("extractor")
        return Extractor.model_validate_json(record) if record else None
    except (SafetensorError, OSError, ValueError):
        return None


def write_samples(clips: Sequence[Clip], results: Sequence[ClipResult], output: Path) -> int:
    """Write `samples.jsonl` of the clips that gave features.

    Returns:
        The number of these clips.
    """
    lines = []
    for clip, result in zip(clips, results, strict=True):
        if result.frames:
            paths = {modality: f"{modality}/{clip.id}.safetensors" for modality in result.frames}
            lines.append(json.dumps(clip.fields() | paths, ensure_ascii=False) + "\n")
    partial = output / f"{SAMPLES}.partial"
    partial.write_text("".join(lines), encoding="utf-8")
    os.replace(partial, output / SAMPLES)
    return len(lines)

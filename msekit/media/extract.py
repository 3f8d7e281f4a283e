"""`extract`: clips → a data set of one's own: feature files, `samples.jsonl` and a YAML that `msekit train` reads.

    <output>/audio/<id>.safetensors  vision/<id>.safetensors  samples.jsonl  <name>.yaml  extract.jsonl

`extract.jsonl` (of shards, `extract-<k>-of-<N>.jsonl`) has a line per finished clip. A clip that stands there and has
not changed since is not extracted again, so a stopped extraction goes on where it was. A clip that cannot be read never
stops the others.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from typing import Any

from msekit.data.catalogue import MODALITIES
from msekit.data.extractor import Extractor, check_settings
from msekit.errors import MsekitError
from msekit.media.added_extractors import added_extractor
from msekit.media.records import ClipResult, ExtractionPlan, Shard, finished, holds, log_of, stamp_of
from msekit.media.table import Clip
from msekit.paths import on_disk
from msekit.reporter import Reporter
from msekit.words import reason

SAMPLES = "samples.jsonl"
_TOGETHER = 64
"""Clips that all encoders see before the next ones: what a stopped extraction loses."""


def extract(
    clips: Sequence[Clip],
    plan: ExtractionPlan,
    output: Path,
    workers: int,
    reporter: Reporter,
    shard: Shard | None = None,
) -> list[ClipResult]:
    """Extract all clips that are not extracted yet.

    Args:
        clips: The clips.
        plan: The extractors.
        output: Folder for the data set; it may hold an unfinished extraction with the same plan.
        workers: Processes.
        reporter: Where progress goes.
        shard: Which of several processes this is; None where it is the only one.

    Returns:
        A result per clip, in their order.

    Raises:
        MsekitError: The folder holds an extraction by other extractors, or cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        done = finished(output, plan, shard)
        results = {clip.id: done[clip.id] for clip in clips if holds(done.get(clip.id), clip)}
        todo = [clip for clip in clips if clip.id not in results]
        if results:
            reporter.note(f"{len(results)} clips are extracted already")
        with (
            log_of(output, shard).open("a", encoding="utf-8") as log,
            reporter.bar("extracting", len(clips), len(results)) as advance,
        ):
            for result in _results(todo, plan, output, workers):
                results[result.id] = result
                log.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
                log.flush()
                advance(1)
                for modality, problem in result.problems.items():
                    reporter.warn(f"{result.id}: no {modality}: {problem}")
    except OSError as error:
        raise MsekitError(f"the output folder cannot be written: {reason(error)}", where=output) from error
    return [results[clip.id] for clip in clips]


def _results(clips: Sequence[Clip], plan: ExtractionPlan, output: Path, workers: int) -> Iterator[ClipResult]:
    """Yield results as they come: encoders work in a thread of this process while the pool does the rest."""
    if not plan.encoders:
        yield from _all(clips, plan, output, workers)
        return
    pooled = plan.for_the_pool
    reports = len(plan.encoders) + (pooled != ExtractionPlan(None, None))
    parts: dict[str, list[ClipResult]] = {}
    found: Queue[ClipResult | BaseException] = Queue()
    stop = threading.Event()
    thread = threading.Thread(target=_encode, args=(clips, plan, output, workers, found, stop), name="msekit-encoders")
    thread.start()

    def whole(part: ClipResult | BaseException) -> Iterator[ClipResult]:
        if isinstance(part, BaseException):
            raise part
        together = parts.setdefault(part.id, [])
        together.append(part)
        if len(together) == reports:
            yield _merged(together)

    try:
        for result in _all(clips, pooled, output, workers) if reports > len(plan.encoders) else ():
            yield from whole(result)
            while not found.empty():
                yield from whole(found.get())
        while sum(map(len, parts.values())) < reports * len(clips):
            yield from whole(found.get())
    finally:
        stop.set()
        thread.join()


def _encode(
    clips: Sequence[Clip], plan: ExtractionPlan, output: Path, workers: int, found: Queue[Any], stop: threading.Event
) -> None:
    """Put what the encoders make of every clip, or the error that ends them, into a queue."""
    from msekit.media.encode_clips import encoded_clips  # torch, which no process of the pool needs

    try:
        for start in range(0, len(clips), _TOGETHER):
            for modality, extractor in plan.encoders.items():
                some = clips[start : start + _TOGETHER]
                for clip, features_LD in encoded_clips(some, modality, extractor, workers, stop):
                    result = ClipResult(clip.id, stamp_of(clip.path))
                    if isinstance(features_LD, MsekitError):
                        result.problems[modality] = features_LD.what
                    else:
                        write_features(output / modality / f"{clip.id}.safetensors", modality, features_LD, extractor)
                        result.frames[modality] = len(features_LD)
                    found.put(result)
    except BaseException as error:  # of any kind: the main thread must end with it
        found.put(error)


def _merged(parts: Sequence[ClipResult]) -> ClipResult:
    """A clip's results of several extractors as one."""
    frames = {key: value for part in parts for key, value in part.frames.items()}
    problems = {key: value for part in parts for key, value in part.problems.items()}
    return ClipResult(
        parts[0].id,
        parts[0].stamp,
        {key: frames[key] for key in MODALITIES if key in frames},
        {key: problems[key] for key in MODALITIES if key in problems},
    )


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
                yield ClipResult(clip.id, stamp_of(clip.path), problems=dict.fromkeys(MODALITIES, problem))
    if waiting:
        yield from _all(list(reversed(waiting)), plan, output, workers)


def extract_one(clip: Clip, plan: ExtractionPlan, output: Path) -> ClipResult:
    """Extract one clip into its feature files, each written whole or not at all."""
    result = ClipResult(clip.id, stamp_of(clip.path))
    for modality, extractor in plan.of_modalities.items():
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

    if extractor.is_encoder:
        check_settings(extractor, "audio" if modality == "audio" else "vision")
        from msekit.media.encode_clips import encoded_clip

        return encoded_clip(path, modality, extractor)
    added = None
    if modality == "audio":
        here = audio.audio_extractor(extractor.name)
    elif extractor.name == vision.EXTRACTOR:
        check_settings(extractor, "face")
        engine = extractor.settings.get("engine", vision.FIRST_ENGINE)
        here = vision.vision_extractor(extractor.settings["face"], engine)
    else:
        added = added_extractor(extractor.name, modality, (vision.EXTRACTOR,))
        here = added.record
    if here != extractor:
        raise MsekitError(f"features of {extractor} are wanted, the extractor here is {here}", where=path)
    try:
        if modality == "audio":
            return audio.audio_features(decode.sound(path), extractor.name)
        if added is not None:
            return added.features(decode.pictures(path, added.pictures_per_second))
        pictures = decode.pictures(path, vision.PICTURES_PER_SECOND)
        return vision.vision_features(pictures, extractor.settings["face"], engine)
    except MsekitError as error:
        raise MsekitError(error.what, where=path, fix=error.fix) from None


def write_features(path: Path, modality: str, features_LD: Any, extractor: Extractor) -> None:
    """Write a feature file that carries the record of its extractor."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({modality: features_LD}, partial, metadata={"extractor": json.dumps(extractor.record())})
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

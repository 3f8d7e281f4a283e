"""Many clips through encoders in one process: threads decode ahead, the model gets batches of several clips.

ffmpeg decodes in processes of its own; a damaged clip is a problem of that clip alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from msekit.data.extractor import Extractor
from msekit.errors import MsekitError
from msekit.media import decode
from msekit.media.encoders import BATCH, chunks_of, encoder_of, joined
from msekit.media.table import Clip

_MOST_DECODED = 4
"""Clips that are held decoded: ten minutes of pictures take 1.6 GB."""


def encoded_clip(path: Path, modality: str, extractor: Extractor) -> np.ndarray:
    """One clip through an encoder: (L, D) float32.

    Raises:
        MsekitError: The clip cannot be decoded or lacks the modality, or the encoder is not there.
    """
    encoder_of(extractor, modality)  # what is wrong with it is no fault of the clip
    return _encoded([decoded(path, modality, extractor)], modality, extractor)[0]


def encoded_clips(
    clips: Sequence[Clip], modality: str, extractor: Extractor, workers: int, stop: threading.Event
) -> Iterator[tuple[Clip, np.ndarray | MsekitError]]:
    """Yield each clip with its features (L, D), or with what is wrong with it, in their order.

    Args:
        clips: The clips.
        modality: `audio` or `vision`.
        extractor: The record of the encoder.
        workers: Threads that decode.
        stop: Ends the work before the next pass.
    """
    encoder_of(extractor, modality)
    waiting, ahead = deque(clips), deque[tuple[Clip, Future[list[Any]]]]()
    group: list[tuple[Clip, list[Any]]] = []
    with ThreadPoolExecutor(min(workers, _MOST_DECODED)) as pool:
        while (waiting or ahead) and not stop.is_set():
            while waiting and len(ahead) < _MOST_DECODED:
                clip = waiting.popleft()
                ahead.append((clip, pool.submit(decoded, clip.path, modality, extractor)))
            clip, future = ahead.popleft()
            try:
                group.append((clip, future.result()))
            except MsekitError as error:
                yield clip, error
            last = not waiting and not ahead
            if group and (last or sum(len(parts) for _, parts in group) >= BATCH[modality]):
                for (done, _), features_LD in zip(
                    group, _encoded([parts for _, parts in group], modality, extractor), strict=True
                ):
                    yield done, features_LD
                group = []
        pool.shutdown(cancel_futures=True)


def decoded(path: Path, modality: str, extractor: Extractor) -> list[Any]:
    """A clip as an encoder reads it: chunks of sound, or pictures; None for one without a face where it is cut to it.

    Raises:
        MsekitError: The clip cannot be decoded or lacks the modality, or shows no face.
    """
    try:
        if modality == "audio":
            from msekit.media.audio import check_long_enough

            return list(chunks_of(check_long_enough(decode.sound(path))))
        pictures = decode.pictures(path, extractor.settings["pictures_per_second"])
        if extractor.settings["crop"] == "none":
            return list(pictures)
        from msekit.media.vision import cut_to_faces

        face, engine = extractor.settings["crop"].split()
        return list(cut_to_faces(pictures, face, engine))
    except MsekitError as error:
        raise MsekitError(error.what, where=path, fix=error.fix) from None


def _encoded(clips: list[list[Any]], modality: str, extractor: Extractor) -> list[np.ndarray]:
    """Decoded clips → (L, D) each, in passes over all of them."""
    encoder, layers, output = (
        encoder_of(extractor, modality),
        extractor.settings["layers"],
        extractor.settings["output"],
    )
    if modality == "vision":
        return (
            _with_gaps(clips, extractor)
            if not encoder.window
            else [joined([encoder.pictures(pictures, layers)], output) for pictures in clips]
        )
    parts = iter(encoder.sound([chunk for chunks in clips for chunk in chunks], layers))
    return [joined([next(parts) for _ in chunks], output) for chunks in clips]


def _with_gaps(clips: list[list[Any]], extractor: Extractor) -> list[np.ndarray]:
    """Pictures of several clips in one go; a picture without a face is a row of NaN."""
    there = [picture for pictures in clips for picture in pictures if picture is not None]
    rows = iter(encoder_of(extractor, "vision").pictures(there, extractor.settings["layers"]))
    sequences = []
    for pictures in clips:
        found = {index: next(rows) for index, picture in enumerate(pictures) if picture is not None}
        frames_LD = np.full((len(pictures), len(next(iter(found.values())))), np.nan, np.float32)
        for index, row_D in found.items():
            frames_LD[index] = row_D
        sequences.append(joined([frames_LD], extractor.settings["output"]))
    return sequences

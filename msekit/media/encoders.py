"""Encoder: a pretrained speech or vision model of transformers as an extractor. No remote code is ever run.

Sound goes through in chunks of ten seconds (a rest under a second belongs to the chunk before it), pictures four a
second. Only inputs of one shape share a batch, so nothing is padded beyond what the model's own preprocessing does,
and a clip gives the same features in any company. A model of moving pictures (VideoMAE) reads windows of as many
pictures as it was trained on; the last picture is repeated where a window is not full.

Shapes: S samples, L frames, T tokens, D features, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msekit.backbones.checkpoints.quiet import quiet_transformers
from msekit.data.extractor import Extractor
from msekit.errors import MsekitError
from msekit.media.decode import SAMPLE_RATE
from msekit.media.encoder_names import EncoderPlace, encoder_place, place_of
from msekit.media.layers import POOLED, check_layers, mean_of_layers

CHUNK_SECONDS = 10
PICTURES_PER_SECOND = 4.0
BATCH = {"audio": 8, "vision": 32}
"""Most chunks or pictures in a pass."""
_VIDEO = ("videomae", "vivit", "timesformer")
"""Models that read several pictures at once."""


def encoder_extractor(
    name: str,
    modality: str,
    layers: str | None = None,
    *,
    one_vector: bool = False,
    crop: str | None = None,
    known: tuple[str, ...] = (),
) -> Extractor:
    """The record of an encoder as an extractor: weights, layers and how its input is cut.

    Args:
        name: Short name, folder, or hub id with or without `@revision`.
        modality: `audio` or `vision`.
        layers: See `media.layers`; None for the last four, or for the vector that a model of pictures makes itself.
        one_vector: The mean over a clip in place of its frames.
        crop: Which face pictures are cut to, as in `vision.choose_face`; None leaves them whole.
        known: Other names that the option takes, for the message.

    Raises:
        MsekitError: No such encoder, or one that cannot be used so.
    """
    place = encoder_place(name, modality, known)
    encoder = _loaded(place, modality)
    layers = check_layers(layers or ("last4" if modality == "audio" or encoder.window else POOLED), modality)
    settings: dict[str, Any] = {"layers": layers, "output": "vector" if one_vector else "frames"}
    if modality == "audio":
        settings["chunk_seconds"] = CHUNK_SECONDS
    else:
        settings |= {"pictures_per_second": PICTURES_PER_SECOND, "crop": _cut(crop) if crop else "none"}
    if crop and encoder.window:
        raise MsekitError(f"'{name}' reads moving pictures, which are not cut to faces", fix="Leave --crop away.")
    if place.speech:
        settings["speech"] = place.speech
    folder = str(place.folder) if place.is_folder else None
    extractor = Extractor(name=place.name, version=place.version, settings=settings, place=folder)
    encoder.try_layers(layers)
    return extractor


def _cut(face: str) -> str:
    """Which face pictures are cut to, and the engine that finds it."""
    from msekit.media.face_engines import default_engine, face_engine

    engine = default_engine()
    face_engine(engine).version()  # where it cannot be used, that is said now
    return f"{face} {engine}"


def encoder_of(extractor: Extractor, modality: str) -> Encoder:
    """The encoder of a record, loaded once per process.

    Raises:
        MsekitError: It is no longer there, or other weights are.
    """
    return _loaded(place_of(extractor.name, extractor.version, extractor.place), modality)


def chunks_of(samples_S: np.ndarray) -> list[np.ndarray]:
    """Cut sound into chunks of ten seconds; a rest under a second stays with the last."""
    size = CHUNK_SECONDS * SAMPLE_RATE
    starts = [start for start in range(0, len(samples_S), size) if not start or len(samples_S) - start >= SAMPLE_RATE]
    return [samples_S[start:stop] for start, stop in zip(starts, [*starts[1:], len(samples_S)], strict=True)]


class Encoder:
    """A loaded encoder.

    Args:
        place: Its files.
        modality: `audio` or `vision`.

    Raises:
        MsekitError: The files hold no such encoder, or need code of their own.
    """

    def __init__(self, place: EncoderPlace, modality: str) -> None:
        self.place, self.modality = place, modality
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            with quiet_transformers():  # the import itself warns of what is not installed
                from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel

                prepare = AutoFeatureExtractor if modality == "audio" else AutoImageProcessor
                plain = {"trust_remote_code": False, "local_files_only": True}
                self.prepare: Any = prepare.from_pretrained(place.folder, **plain)
                model: Any = AutoModel.from_pretrained(place.folder, dtype=torch.float32, **plain)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise MsekitError(f"'{place.name}' cannot be loaded: {reason[:300]}", where=place.folder) from error
        self.window = model.config.num_frames if model.config.model_type in _VIDEO else 0
        """Pictures that the model reads at once; 0 for one."""
        if modality == "audio" and getattr(self.prepare, "sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise MsekitError(f"'{place.name}' reads sound at {self.prepare.sampling_rate} Hz, not at {SAMPLE_RATE}")
        self.model = model.eval().requires_grad_(False).to(self.device)
        self._tower: Any = model.get_encoder() if model.config.is_encoder_decoder else model
        self._tower = getattr(self._tower, "vision_model", self._tower)

    def try_layers(self, layers: str) -> None:
        """Encode an empty input: what cannot be is said before clips are read.

        Raises:
            MsekitError: The encoder has no such layers.
        """
        if self.modality == "audio":
            self.sound([np.zeros(SAMPLE_RATE, np.float32)], layers)
        else:
            self.pictures([np.zeros((64, 64, 3), np.uint8)], layers)

    def sound(self, chunks: Sequence[np.ndarray], layers: str) -> list[np.ndarray]:
        """Chunks (S,) of sound at 16 kHz → (L, D) float32 each.

        Raises:
            MsekitError: The encoder has no such layers.
        """
        encoded: list[Any] = [None] * len(chunks)
        order = sorted(range(len(chunks)), key=lambda index: len(chunks[index]))
        for _, group in groupby(order, key=lambda index: len(chunks[index])):
            alike = list(group)
            for start in range(0, len(alike), BATCH["audio"]):
                indices = alike[start : start + BATCH["audio"]]
                inputs = self.prepare(
                    [chunks[index] for index in indices], sampling_rate=SAMPLE_RATE, return_tensors="pt"
                )
                states_BLD = self._states(inputs, layers)[:, : self._real(len(chunks[indices[0]]))]
                for index, states_LD in zip(indices, states_BLD, strict=True):
                    encoded[index] = states_LD.numpy()
        return encoded

    def pictures(self, pictures: Sequence[np.ndarray], layers: str) -> np.ndarray:
        """Pictures (height, width, 3) uint8 in order → (L, D) float32, a row a picture or window.

        Raises:
            MsekitError: The encoder has no such layers, or makes no vector of its own.
        """
        rows = []
        step = BATCH["vision"] if not self.window else max(BATCH["vision"] // self.window, 1) * self.window
        for start in range(0, len(pictures), step):
            batch: list[Any] = list(pictures[start : start + step])
            if self.window:
                batch += batch[-1:] * (-len(batch) % self.window)
                batch = [batch[first : first + self.window] for first in range(0, len(batch), self.window)]
            inputs = self.prepare(images=batch, return_tensors="pt")
            rows.append(self._pooled(inputs) if layers == POOLED else self._states(inputs, layers).mean(dim=1))
        return np.ascontiguousarray(torch.cat(rows).numpy())

    def _states(self, inputs: Any, layers: str) -> Tensor:
        """(B, T, D) mean over the chosen layers, on the CPU."""
        with torch.no_grad():
            states = self._tower(**inputs.to(self.device), output_hidden_states=True).hidden_states
        if states is None:
            raise MsekitError(f"'{self.place.name}' gives no hidden states")
        return mean_of_layers(states, layers).cpu()

    def _pooled(self, inputs: Any) -> Tensor:
        """(B, D) the model's own vector of each picture, on the CPU."""
        of = getattr(self.model, "get_image_features", self.model)
        with torch.no_grad():
            output = of(**inputs.to(self.device))
        pooled = output if isinstance(output, Tensor) else getattr(output, "pooler_output", None)
        if pooled is None:
            raise MsekitError(f"'{self.place.name}' makes no vector of its own", fix="Say --layers last4.")
        return pooled.float().cpu()

    def _real(self, samples: int) -> int | None:
        """Frames of a chunk that are not of its padding; None where there is none (Whisper's is 30 s long)."""
        if getattr(self.prepare, "nb_max_frames", None) is None:
            return None
        return math.ceil(samples / (2 * self.prepare.hop_length))  # its second convolution takes every other


def joined(parts: Iterable[np.ndarray], output: str) -> np.ndarray:
    """A clip's parts (L, D) as one sequence, or as `vector` their mean over all frames that are finite: (1, D)."""
    frames_LD = np.concatenate(list(parts))
    if output == "vector":
        frames_LD = frames_LD[np.isfinite(frames_LD).all(axis=1)].mean(axis=0, keepdims=True)
    return np.ascontiguousarray(frames_LD, dtype=np.float32)


@lru_cache(maxsize=2)
def _loaded(place: EncoderPlace, modality: str) -> Encoder:
    return Encoder(place, modality)

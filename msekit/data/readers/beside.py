"""What files hold beside the rows: features of the text (published ones of intensities), a label for each modality.

They are read where they lie, memory-mapped, by whoever asks for them; the cache holds neither.

Shapes: N samples of a split, T tokens, d width of a token's features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.own_folder import OwnSet
from msekit.data.readers.published import PublishedSet
from msekit.data.readers.rows import mapping_of, names_of
from msekit.errors import MsekitError

LABELS = ("regression_labels_T", "regression_labels_A", "regression_labels_V")
"""Keys of the labels of text, audio and vision by themselves (SIMS, SIMS-V2)."""


@dataclass(frozen=True)
class TextFeatures:
    """A split's features of its texts."""

    values: Any
    """(N, T, d), as the file has it."""
    lengths: np.ndarray
    """(N,) tokens."""
    opens: bool
    """Whether the first token stands for the whole text ([CLS] of BERT); otherwise its mean does."""

    @property
    def width(self) -> int:
        """d."""
        return int(self.values.shape[2])

    def tokens(self, indices: Sequence[int]) -> Tensor:
        """(B, T, d) float32, zero beyond a text's end."""
        longest = max(1, int(self.lengths[list(indices)].max()))
        states = torch.zeros(len(indices), longest, self.width)
        for row, index in enumerate(indices):
            length = int(self.lengths[index])
            states[row, :length] = torch.from_numpy(np.array(self.values[index][:length], dtype=np.float32))
        return torch.nan_to_num(states)

    def sentence(self, indices: Sequence[int]) -> Tensor:
        """(B, d) float32."""
        states = self.tokens(indices)
        if self.opens:
            return states[:, 0]
        counts = torch.from_numpy(self.lengths[list(indices)]).clamp(min=1)[:, None]
        return states.sum(dim=1) / counts


def text_features(spec: DatasetSpec, split: str, samples: int) -> TextFeatures:
    """The features of a split's texts that its file holds under `text`.

    Lengths come from the mask in `text_bert` (N, 3, T); without it, zeros at a text's end are padding.

    Raises:
        MsekitError: The layout has none, or the file has none of that shape.
    """
    columns, path = _columns(spec, split)
    values = columns.get("text")
    where = f"{path}, {split}, key 'text'"
    if values is None:
        hint = " It holds BERT's token ids, which need BERT itself." if columns.get("text_bert") is not None else ""
        raise MsekitError(
            f"the file holds no features of its texts.{hint}",
            where=where,
            fix=f"Use --text-from words or backbone. The split holds: {names_of(columns)}",
        )
    if not isinstance(values, np.ndarray) or values.ndim != 3 or len(values) != samples or values.dtype.kind != "f":
        raise MsekitError(f"'text' is not an array of numbers of shape ({samples}, tokens, features)", where=where)
    bert = columns.get("text_bert")
    if isinstance(bert, np.ndarray) and bert.shape[:2] == (samples, 3):
        return TextFeatures(values, np.minimum(bert[:, 1].sum(axis=1).astype(np.int64), values.shape[1]), opens=True)
    ends = [np.flatnonzero(np.any(row, axis=1)) for row in values]
    lengths = [int(end[-1]) + 1 if len(end) else 0 for end in ends]
    return TextFeatures(values, np.array(lengths, dtype=np.int64), opens=False)


def modality_labels(spec: DatasetSpec, split: str, samples: int) -> np.ndarray | None:
    """(N, 3) float32, labels of text, audio and vision by themselves, NaN where unknown; None where there are none.

    Raises:
        MsekitError: Some are there and do not fit the split.
    """
    if spec.layout == "folder":
        rows = OwnSet(spec).modality_labels(split)
        stated = np.array([[np.nan if label is None else label for label in row] for row in rows], np.float32)
        return None if np.isnan(stated).all() else stated
    if spec.layout != "msa-pickle":
        return None
    columns, path = _columns(spec, split)
    there = [key for key in LABELS if columns.get(key) is not None]
    if not there:
        return None
    labels = np.full((samples, len(LABELS)), np.nan, np.float32)
    for key in there:
        values = np.asarray(columns[key])
        if values.size != samples or values.dtype.kind not in "fiu":
            raise MsekitError(f"'{key}' is not a number for each of {samples} samples", where=f"{path}, {split}")
        labels[:, LABELS.index(key)] = values.reshape(-1)
    return labels


def beside_the_rows(spec: DatasetSpec) -> list[str]:
    """What a file holds that only baselines read, a line each."""
    if spec.layout != "msa-pickle":
        return []
    columns, _ = _columns(spec, "train")
    lines = []
    text = columns.get("text")
    if isinstance(text, np.ndarray) and text.ndim == 3:
        exact = "" if columns.get("text_bert") is None else ", their lengths by text_bert"
        lines.append(f"features of the text, {text.shape[2]} for each of {text.shape[1]} tokens{exact}")
    there = [key for key in LABELS if columns.get(key) is not None]
    if there:
        lines.append(f"labels of single modalities: {', '.join(there)}")
    return lines


def _columns(spec: DatasetSpec, split: str) -> tuple[Mapping[str, Any], Path]:
    if spec.layout != "msa-pickle":
        raise MsekitError(
            f"data of layout '{spec.layout}' holds no features of its texts",
            where="--text-from file",
            fix="Use --text-from words or backbone.",
        )
    source = PublishedSet(spec)
    return mapping_of(source.columns(split), str(source.source_files[0]), "the split"), source.source_files[0]

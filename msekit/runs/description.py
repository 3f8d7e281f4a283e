"""`adapter.json`: all that a plug-in needs beside its tensors and the backbone. Plain data; reading it runs nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msekit.data.batches.preprocess import Preprocessor
from msekit.data.catalogue import DatasetSpec
from msekit.errors import MsekitError
from msekit.settings.config import AdapterConfig

ADAPTER_FILE = "adapter.safetensors"
DESCRIPTION_FILE = "adapter.json"
FORMAT = 1
_LARGEST = 64 << 20  # bytes of an adapter.json; statistics of 2,048 features take 100 kB


class BackboneRef(BaseModel):
    """The LLM that the plug-in was trained on."""

    model_config = ConfigDict(extra="forbid")

    name: str
    """Catalogue name, folder or hub id."""
    fingerprint: str
    """Of its source tensors."""
    quantization: str = "none"
    """How it was held in training."""
    dtype: str | None = None
    """torch's name of the type it was held in; None for what suits the machine."""


class Description(BaseModel):
    """The content of `adapter.json`. An unknown key is an error: what it says could not be honoured."""

    model_config = ConfigDict(extra="forbid")

    format: int
    msekit: str
    """Version that wrote it."""
    backbone: BackboneRef
    dataset: DatasetSpec
    """Task, labels or range, prompt; not where its files lay."""
    data_fingerprint: str | None = None
    """None where the training data is not known (an imported adapter)."""
    adapter: AdapterConfig
    text_dim: int
    widths: dict[Literal["audio", "vision"], int]
    """Features per frame; 0 for a modality without an encoder."""
    features: dict[Literal["audio", "vision"], Preprocessor | None]
    """The way of each modality's sequences to the adapter."""
    feature_dtype: Literal["float32", "float16"] = "float32"
    """Precision that features were stored in before they were standardised."""
    text_limit: int = Field(ge=1)
    context: int = Field(0, ge=0)
    """Previous utterances of the dialogue before each text."""
    on_missing: Literal["zero", "learned", "drop", "error"] = "zero"
    estimate: Literal["greedy", "argmax", "mean", "median"]
    prompt: str
    prompt_sha256: str
    layout: Literal["paper", "prompt-first"] = "paper"
    recipe: str
    seed: int | None = None
    averaged_seeds: list[int] = Field(default_factory=list)
    """Runs whose weights were averaged."""
    imported_from: str | None = None
    trainable_parameters: int

    @model_validator(mode="after")
    def _one_story(self) -> Description:
        for name in ("audio", "vision"):
            width, way = self.widths[name], self.features[name]
            if (width > 0) != (way is not None):
                raise ValueError(f"{name}: a width of {width} does not fit its preprocessing")
            if way is not None and any(len(values) != width for values in (way.mean, way.std) if values is not None):
                raise ValueError(f"{name}: the statistics are not of {width} features")
        return self

    @property
    def labels(self) -> str:
        """The label space in words."""
        low_high = self.dataset.range
        return f"{low_high[0]:g} … {low_high[1]:g}" if low_high else ", ".join(self.dataset.labels or ())


def read_description(folder: Path) -> Description:
    """Read a folder's `adapter.json`.

    Raises:
        MsekitError: It is missing, damaged, or of a later format.
    """
    where = folder / DESCRIPTION_FILE
    try:
        if where.stat().st_size > _LARGEST:
            raise MsekitError(f"the file is larger than {_LARGEST >> 20} MB", where=where)
        raw: Any = json.loads(where.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("format", 0) != FORMAT:
            raise MsekitError(
                f"the plug-in has format {raw.get('format')!r}, this msekit reads {FORMAT}",
                where=where,
                fix="Use the msekit that wrote it, or a later one.",
            )
        return Description(**raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "description"
        raise MsekitError(f"the file is damaged: {key}: {first['msg']}", where=where) from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise MsekitError(f"the file is damaged: {error!r}", where=where) from error


def read_spec_of(folder: Path) -> DatasetSpec:
    """The data set that a run was trained on, as its `adapter.json` states it.

    Raises:
        MsekitError: The file is missing or damaged.
    """
    file = folder / "adapter.json"
    try:
        return DatasetSpec(**json.loads(file.read_text(encoding="utf-8"))["dataset"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MsekitError(f"the file is damaged or missing: {error!r}", where=file) from error


WHERE_ITS_FILES_LIE = {"source", "files", "hub", "hub_revision", "split_sizes", "frames"}
"""What a data set's description says of its files, for which inference has no use."""

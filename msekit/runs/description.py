"""`adapter.json`: what a run's tensors are and were trained on. One schema, one writer, one reader; no torch.

It holds all that a plug-in needs beside its tensors and the backbone. It is plain data; reading it runs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msekit.data.batches.preprocess import Preprocessor
from msekit.data.catalogue import DatasetSpec
from msekit.errors import MsekitError, brief
from msekit.json_file import read_json
from msekit.runs.files import DESCRIPTION, opened, sealed, write_json
from msekit.settings.config import AdapterConfig
from msekit.words import first_fault, reason

FORMAT = 1
WHERE_ITS_FILES_LIE = {"source", "files", "hub", "hub_revision", "split_sizes", "frames", "width_note"}
"""What a data set's description says of its files, for which a run's description has no use."""


class BackboneRef(BaseModel):
    """The LLM that the plug-in was trained on."""

    model_config = ConfigDict(extra="forbid")

    name: str
    """Catalogue name, folder or hub id."""
    fingerprint: str
    """Of its source tensors."""
    configuration: str | None = None
    """Fingerprint of its configuration and tokenizer; None where an older msekit wrote the file."""
    quantization: str = "none"
    """How it was held in training."""
    dtype: str | None = None
    """torch's name of the type it was held in; None for what suits the machine."""

    def read_otherwise(self, found: str | None) -> str | None:
        """What to tell whoever uses these weights with the configuration and tokenizer that were found; None if equal.

        Args:
            found: Their fingerprint; None for a model that comes from no checkpoint.
        """
        if found is None or self.configuration == found:
            return None
        if self.configuration is None:
            return "the run does not say which configuration and tokenizer its backbone had: an older msekit made it"
        return "the backbone's configuration or tokenizer is not the one that was trained with: answers may differ"


class Baseline(BaseModel):
    """What a baseline is: a run without an adapter to load."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["baseline"]
    format: int
    msekit: str
    """Version that wrote it."""
    name: str | None
    """Of the model; None where the file does not say."""
    dataset: DatasetSpec
    """Task, labels or range, prompt; not where its files lay."""


class Description(BaseModel):
    """What an adapter is. An unknown key is an error: what it says could not be honoured."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["plug-in", "imported", "averaged"]
    """Trained here, brought from the authors' program, or the mean of several seeds."""
    format: int
    msekit: str
    """Version that wrote it."""
    backbone: BackboneRef
    dataset: DatasetSpec
    """Task, labels or range, prompt; not where its files lay."""
    data_fingerprint: str | None = None
    """None where the training data is not known (an imported adapter)."""
    adapter: AdapterConfig
    text_dim: int = Field(ge=1)
    widths: dict[Literal["audio", "vision"], Annotated[int, Field(ge=0)]]
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
    """Of `averaged`: the runs whose weights were averaged."""
    imported_from: str | None = None
    """Of `imported`: in words."""
    trainable_parameters: int

    @model_validator(mode="after")
    def _one_story(self) -> Description:
        for name in ("audio", "vision"):
            width, way = self.widths[name], self.features[name]
            if (width > 0) != (way is not None):
                raise ValueError(f"{name}: a width of {width} does not fit its preprocessing")
            statistics = (way.mean, way.std, way.rest) if way is not None else ()
            if any(len(values) != width for values in statistics if values is not None):
                raise ValueError(f"{name}: the statistics are not of {width} features")
        return self

    @property
    def labels(self) -> str:
        """The label space in words."""
        if self.dataset.targets:
            return "; ".join(f"{name}: {target.in_words()}" for name, target in self.dataset.targets.items())
        low_high = self.dataset.range
        return f"{low_high[0]:g} … {low_high[1]:g}" if low_high else ", ".join(self.dataset.labels or ())


def write_description(folder: Path, description: Description | Baseline) -> None:
    """Write a folder's `adapter.json`."""
    document = description.model_dump(mode="json", exclude={"dataset": WHERE_ITS_FILES_LIE})
    write_json(folder / DESCRIPTION, sealed(document))


def read_description(folder: Path) -> Description:
    """Read what a run's adapter is.

    Raises:
        MsekitError: The file is missing, damaged, or of a later format; or the run is a baseline.
    """
    description = _read(folder)
    if isinstance(description, Baseline):
        raise MsekitError(
            "this run is a baseline, which leaves no adapter", where=folder, fix="Give a run of `msekit train`."
        )
    return description


def read_spec_of(folder: Path) -> DatasetSpec:
    """The data set that a run of any kind was trained on.

    Raises:
        MsekitError: `adapter.json` is missing, damaged, or of a later format.
    """
    return _read(folder).dataset


def without_places(spec: DatasetSpec) -> dict[str, Any]:
    """What a data set is, wherever its files lie, with the family of its metrics by name."""
    family = spec.metric_family if spec.task == "msa" and not isinstance(spec.metrics, tuple) else spec.metrics
    return spec.model_dump(mode="json", exclude=WHERE_ITS_FILES_LIE) | {"metrics": family}


def _read(folder: Path) -> Description | Baseline:
    where = folder / DESCRIPTION
    try:
        raw: Any = read_json(where)
        if isinstance(raw, dict) and raw.get("format", FORMAT) != FORMAT:
            raise MsekitError(
                f"the plug-in has format {brief(raw.get('format'))}, this msekit reads {FORMAT}",
                where=where,
                fix="Use the msekit that wrote it, or a later one.",
            )
        raw = _with_kind(opened(raw, where))
        return Baseline(**raw) if raw["kind"] == "baseline" else Description(**raw)
    except ValidationError as error:
        raise MsekitError(f"the file is damaged: {first_fault(error)[2]}", where=where) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MsekitError(f"the file is damaged: {reason(error)}", where=where) from error


def _with_kind(raw: dict[str, Any]) -> dict[str, Any]:
    """A description with its kind: folders of the first runs state none, and what they hold tells it."""
    if "kind" in raw:
        return raw
    if raw.keys() == {"dataset"}:
        return {"kind": "baseline", "format": FORMAT, "msekit": "0.1.0", "name": None, **raw}
    if raw.get("averaged_seeds"):
        return {"kind": "averaged", **raw}
    return {"kind": "imported" if raw.get("imported_from") else "plug-in", **raw}

"""DATASETS: one entry per corpus. Adding a corpus is one entry here, or a short YAML of one's own.

Sizes, widths and text limits are those of the published feature files; the prompts are this project's own
wording of what the paper's Appendix C asks for (state the range, or the label set with its numbers).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from msekit.data.description_checks import Folds, check_description, checked, with_key
from msekit.data.extractor import Extractor
from msekit.data.targets import Target, prompt_of, with_task
from msekit.errors import MsekitError, UnsaidLabelsError, nearest, without_control_characters
from msekit.paths import expanded, shipped

SPLITS = ("train", "valid", "test")
MODALITIES = ("audio", "vision")
COLUMNS = ("id", "text", "label", "split", "speaker", "dialogue_id", "fold", "session", *MODALITIES)
"""What a table of samples holds."""
Label = Annotated[str, AfterValidator(without_control_characters)]
Task = Literal["msa", "erc", "targets"]
Layout = Literal["msa-pickle", "erc-pickle", "folder", "csv", "synthetic"]
MetricFamily = Literal["general", "mosi", "sims"]
"""Which definitions the metrics of intensities follow (`evaluation/metrics.py`)."""


class DatasetSpec(BaseModel):
    """What a corpus is: its task, labels, layout on disk and the checks its files must pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """Letters, digits, `_`, `-` and `.`: it names folders."""
    task: Task
    """`msa`: an intensity is regressed; `erc`: an emotion is classified; `targets`: several things are asked."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-\w+)*$")] = "en"
    """By its ISO 639 code; msekit has prompts for `en` and `zh`, any other language needs a `prompt` of its own."""
    layout: Layout
    labels: Annotated[tuple[Label, ...], Field(max_length=10_000)] | None = None
    """Class names in the order of their numbers (erc only)."""
    aliases: dict[str, str] = Field(default_factory=dict)
    """Label strings as the files spell them → class names, where they differ."""
    range: tuple[float, float] | None = None
    """Lowest and highest intensity (msa only)."""
    targets: dict[str, Target] = Field(default_factory=dict)
    """Several things that a sample is asked, by name, in place of `labels` or `range` (`data/targets.py`)."""
    prompt: str | None = None
    """The task prompt; None for the default wording of the task and language."""
    source: Path | None = None
    """Folder or file with the published features; relative to the YAML that names it."""
    files: str | None = None
    """Stem of the three ERC pickles `<files>_{train,valid,test}.pkl`, or the name of the MSA pickle."""
    text_limit: Annotated[int, Field(ge=1)] = 65
    """Longest text in tokens; longer ones are cut and counted."""
    audio_width: int | None = None
    """Expected features per audio frame; 0 says the set has no audio, None says unknown."""
    vision_width: int | None = None
    width_note: str | None = None
    """A sentence for whoever has a file of another width."""
    split_sizes: tuple[int, int, int] | None = None
    """Expected samples in train, valid and test."""
    frames: tuple[int, int] | None = None
    """Longest audio and vision sequences of the files, for `msekit plan`; None says unknown."""
    encoding: str | None = None
    """Of a CSV's text, by its Python name (`gb18030`, `utf-16`); None for UTF-8."""
    delimiter: str | None = None
    """What stands between a CSV's cells; None for a comma, or a tab in .tsv."""
    columns: dict[str, str] = Field(default_factory=dict)
    """What a row holds (`text`, `label`, …) → the column of the table that holds it, where it is called otherwise."""
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of train's rows that is set apart as valid, for tables that have no such split; None for none."""
    folds: Folds | None = None
    """How the rows are parted for cross-validation, in place of the column `split`; None for not."""
    fold: Annotated[int, Field(ge=1)] | None = None
    """The fold that is the test split; `msekit train --folds` chooses it."""
    metrics: MetricFamily | tuple[str, ...] | None = None
    """A family of definitions (msa only), or the metrics by name (`evaluation/metrics.py`); None for what
    `metric_family` says, and for emotions all usual ones."""
    key_metric: str = ""
    """The validation metric that selects the best epoch; where it is not said MAE for msa, WF1 for erc, or the first
    of `metrics`."""
    hub: str | None = None
    """Hub data set repository with the processed features."""
    hub_revision: str | None = None
    """Commit, tag or branch of it; None for the newest."""
    extractors: dict[Literal["audio", "vision", "text"], Extractor] = Field(default_factory=dict)
    """What made the features and transcribed the texts, where `msekit extract` did."""

    @field_validator("delimiter", mode="before")
    @classmethod
    def _named_tab(cls, value: object) -> object:
        return "\t" if value in ("tab", "\\t") else value

    @model_validator(mode="before")
    @classmethod
    def _key_of_the_task(cls, said: object) -> object:
        """Fill in `key_metric`, so that a description says it."""
        return with_key(with_task(said)) if isinstance(said, Mapping) else said

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSpec:
        check_description(self, COLUMNS)
        return self

    @model_serializer(mode="wrap")
    def _without_what_it_has_not(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The files of a set of one target have no word of several."""
        written: dict[str, Any] = write(self)
        return written if self.targets else {key: value for key, value in written.items() if key != "targets"}

    @property
    def metric_family(self) -> MetricFamily:
        """`metrics`; where the set does not say, those of the catalogue's set of this name and range, else `general`.

        Adapters that were described before this field was are told by their set's name. `mosi` adds metrics to
        `general` and changes none, so a set of one's own on its scale of [-3, 3] has them too; `sims` defines the
        general ones otherwise, so no set gets it by its range.
        """
        namesake = DATASETS.get(self.name)
        if isinstance(self.metrics, str):
            return self.metrics
        if namesake is not None and namesake.range == self.range:
            return namesake.metrics if isinstance(namesake.metrics, str) else "general"
        return "mosi" if self.range == (-3.0, 3.0) else "general"

    @property
    def grid(self) -> tuple[float, ...]:
        """The intensities that can be answered: the range in steps of a tenth; empty for emotions."""
        if self.range is None:
            return ()
        low, high = (round(value * 10) for value in self.range)
        return tuple(tenth / 10 for tenth in range(low, high + 1))

    @property
    def task_prompt(self) -> str:
        """The prompt as the model reads it, without tags or label."""
        return prompt_of(self)


_MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
_CHERMA = ("愤怒", "厌恶", "恐惧", "高兴", "平静", "悲伤", "惊奇")
_IEMOCAP = ("hap", "sad", "neu", "ang", "exc", "fru")

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="mosei",
            task="msa",
            layout="msa-pickle",
            range=(-3.0, 3.0),
            files="unaligned_50.pkl",
            text_limit=50,
            audio_width=74,
            vision_width=35,
            width_note="Two files called MOSEI circulate, with audio width 5 and 74.",
            split_sizes=(16326, 1871, 4659),
            hub="AZYoung/MOSEI_processed",
            frames=(500, 375),
            metrics="mosi",
        ),
        DatasetSpec(
            name="mosi",
            task="msa",
            layout="msa-pickle",
            range=(-3.0, 3.0),
            files="unaligned_50.pkl",
            text_limit=50,
            audio_width=5,
            vision_width=20,
            split_sizes=(1284, 229, 686),
            frames=(50, 50),
            metrics="mosi",
        ),
        DatasetSpec(
            name="sims-v2",
            task="msa",
            language="zh",
            layout="msa-pickle",
            range=(-1.0, 1.0),
            files="ch-simsv2s.pkl",
            text_limit=50,
            audio_width=25,
            vision_width=177,
            split_sizes=(2722, 647, 1034),
            hub="AZYoung/SIMSV2_processed",
            frames=(925, 232),
            metrics="sims",
        ),
        DatasetSpec(
            name="sims",
            task="msa",
            language="zh",
            layout="msa-pickle",
            range=(-1.0, 1.0),
            files="unaligned_39.pkl",
            text_limit=50,
            audio_width=33,
            vision_width=709,
            split_sizes=(1368, 456, 457),
            metrics="sims",
        ),
        DatasetSpec(
            name="meld",
            task="erc",
            layout="erc-pickle",
            labels=_MELD,
            files="meld",
            text_limit=65,
            audio_width=64,
            vision_width=64,
            split_sizes=(9989, 1108, 2610),
            hub="AZYoung/MELD_processed",
            frames=(157, 32),
        ),
        DatasetSpec(
            name="cherma",
            task="erc",
            language="zh",
            layout="erc-pickle",
            labels=_CHERMA,
            files="cherma",
            text_limit=78,
            audio_width=1024,
            vision_width=2048,
            hub="AZYoung/CHERMA0723_processed",
            frames=(543, 16),
        ),
        DatasetSpec(
            name="iemocap",
            task="erc",
            layout="erc-pickle",
            labels=_IEMOCAP,
            files="iemocap",
            text_limit=84,
            audio_width=64,
            vision_width=64,
            frames=(157, 32),
        ),
        DatasetSpec(name="synthetic-erc", task="erc", layout="synthetic", labels=("calm", "glad", "sad", "angry")),
        DatasetSpec(name="synthetic-msa", task="msa", layout="synthetic", range=(-3.0, 3.0), metrics="mosi"),
        DatasetSpec(
            name="synthetic-targets",
            task="targets",
            layout="synthetic",
            targets={
                "emotion": Target(classes=("calm", "glad", "sad", "angry")),
                "signs": Target(labels=("laughter", "sighs", "smile", "tears")),
                "valence": Target(range=(-3.0, 3.0)),
            },
        ),
    )
}


def read_spec(path: Path) -> DatasetSpec:
    """Read a data set's short YAML; a relative `source` is taken from the YAML's folder.

    Raises:
        MsekitError: The file is unreadable, not a mapping, or a key is unknown, missing or wrong.
    """
    from msekit.yaml_file import read_mapping  # of no use to whoever uses a plug-in

    raw = read_mapping(path, "data set description")
    if unknown := [key for key in raw if key not in DatasetSpec.model_fields]:
        raise MsekitError(f"unknown key '{unknown[0]}'", where=path, fix=nearest(unknown[0], DatasetSpec.model_fields))
    spec = _checked(raw, path)
    if spec.source is None and spec.hub is not None:
        return spec
    source = expanded(Path(os.path.expandvars(spec.source or ".")))
    if "$" in str(source) and not (path.parent / source).exists():
        raise MsekitError(f"source: there is no variable for '{source}'", where=path, fix="Set it, or write the path")
    return spec.model_copy(update={"source": (path.parent / source).resolve()})


def _checked(raw: Mapping[str, Any], where: object) -> DatasetSpec:
    return checked(DatasetSpec, raw, where)


def resolve_dataset(
    name: str, source: Path | None = None, options: Mapping[str, Any] | None = None, asks: str = "--dataset "
) -> DatasetSpec:
    """Find a data set by catalogue name or by the path of a YAML that describes it, or describe it by options.

    Args:
        name: `mosei`, …, `path/to/set.yaml`, `hub:owner/name`, or with options any name of one's own.
        source: Where its features lie; overrides what the YAML says.
        options: `labels`, `range`, `language`, …: override what is known; None says nothing. A set that is neither in
            the catalogue nor in a YAML needs labels or a range; its layout is seen from its files. None for a command
            that takes none of them.
        asks: What stands before the name in the command, for advice.

    Raises:
        MsekitError: No such name or file (the nearest names are offered), or options that do not fit.
    """
    from msekit.data.find_files import layout_of, no_description, refuse_missing, unknown_set, without_files

    overrides = {key: value for key, value in (options or {}).items() if value is not None}
    if source is not None:
        source = expanded(source)
        overrides["source"] = source.resolve()
    if name.startswith("hub:"):
        from msekit.data.hub_tables import described as of_the_hub

        return _checked(of_the_hub(name, overrides), name)
    if name in DATASETS:
        spec = DATASETS[name]
    elif Path(name).suffix.lower() in (".yaml", ".yml"):
        path = expanded(Path(name))
        if not path.is_file():
            raise no_description(path)
        spec = read_spec(path)
    elif (described := shipped("configs") / "datasets" / f"{name}.yaml").is_file():
        if source is None:
            raise MsekitError(f"data set '{name}' needs its files", fix="Say where they lie with --source PATH")
        spec = read_spec(described)
    elif {"labels", "range", "targets"} & overrides.keys():
        if source is None:
            raise MsekitError(f"data set '{name}' needs its files", fix=without_files(name))
        task: Task = "targets" if "targets" in overrides else "erc" if "labels" in overrides else "msa"
        said = {"name": name, "task": task, "layout": "csv", **overrides}  # which takes every option
        _checked(said, name)
        refuse_missing(source)
        return _checked(said | {"layout": layout_of(source, task)}, name)
    elif source is not None and source.exists():
        fix = "Say what the labels of your own files are: --labels joy,anger,… or --range -3,3"
        raise UnsaidLabelsError(f"unknown data set '{name}', and its labels are not said", where=source, fix=fix)
    else:
        if source is not None:
            refuse_missing(source)
        raise unknown_set(name, DATASETS, read_spec, asks, by_options=options is not None)
    if spec.layout == "synthetic" and (other := sorted({"labels", "range", "targets"} & overrides.keys())):
        raise MsekitError(f"'{name}' is made with what it asks: it takes no other {other[0]}")
    said = spec.model_dump(exclude={"key_metric"} if "metrics" in overrides else None)
    return _checked(said | overrides, name) if overrides else spec

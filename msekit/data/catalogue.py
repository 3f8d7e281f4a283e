"""DATASETS: one entry per corpus. Adding a corpus is one entry here, or a short YAML of one's own.

Sizes, widths and text limits are those of the published feature files; the prompts are this project's own
wording of what the paper's Appendix C asks for (state the range, or the label set with its numbers).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from msekit.data.extractor import Extractor
from msekit.errors import MsekitError, UnsaidLabelsError, nearest, without_control_characters
from msekit.paths import expanded

SPLITS = ("train", "valid", "test")
MODALITIES = ("audio", "vision")
COLUMNS = ("id", "text", "label", "split", "speaker", "dialogue_id", *MODALITIES)
"""What a table of samples holds."""
Label = Annotated[str, AfterValidator(without_control_characters)]
Task = Literal["msa", "erc"]
Layout = Literal["msa-pickle", "erc-pickle", "folder", "csv", "synthetic"]
MetricFamily = Literal["general", "mosi", "sims"]
"""Which definitions the metrics of intensities follow (`evaluation/metrics.py`)."""


class DatasetSpec(BaseModel):
    """What a corpus is: its task, labels, layout on disk and the checks its files must pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """Letters, digits, `_`, `-` and `.`: it names folders."""
    task: Task
    """`msa`: an intensity is regressed; `erc`: an emotion is classified."""
    language: Literal["en", "zh"] = "en"
    layout: Layout
    labels: Annotated[tuple[Label, ...], Field(max_length=10_000)] | None = None
    """Class names in the order of their numbers (erc only)."""
    aliases: dict[str, str] = Field(default_factory=dict)
    """Label strings as the files spell them → class names, where they differ."""
    range: tuple[float, float] | None = None
    """Lowest and highest intensity (msa only)."""
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
    metrics: MetricFamily | None = None
    """msa only; None for what `metric_family` says."""
    hub: str | None = None
    """Hub data set repository with the processed features."""
    hub_revision: str | None = None
    """Commit, tag or branch of it; None for the newest."""
    extractors: dict[Literal["audio", "vision"], Extractor] = Field(default_factory=dict)
    """What made the features, where `msekit extract` did."""

    @field_validator("delimiter", mode="before")
    @classmethod
    def _named_tab(cls, value: object) -> object:
        return "\t" if value in ("tab", "\\t") else value

    @model_validator(mode="after")
    def _labels_or_range(self) -> DatasetSpec:
        if self.task == "erc" and (self.labels is None or self.range is not None):
            raise ValueError("an erc data set needs `labels` (a list, in the order of their numbers) and no `range`")
        if self.task == "msa" and (self.range is None or self.labels is not None):
            raise ValueError("an msa data set needs `range: [low, high]` and no `labels`")
        if self.labels is not None and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise ValueError("`labels` must be two or more different names")
        if self.range is not None and not -100 <= self.range[0] < self.range[1] <= 100:
            raise ValueError("`range` must be [low, high] with low < high, both within [-100, 100]")
        if self.metrics is not None and self.task == "erc":
            raise ValueError("`metrics` are chosen for intensities; an erc data set has none to choose")
        return self

    @model_validator(mode="after")
    def _readable_table(self) -> DatasetSpec:
        if strangers := [name for name in self.aliases.values() if name not in (self.labels or ())]:
            raise ValueError(f"`aliases` lead to class names, and '{strangers[0]}' is none of `labels`")
        for key in ("encoding", "delimiter"):
            if getattr(self, key) is not None and self.layout != "csv":
                raise ValueError(f"`{key}` is of CSV files, and the layout here is '{self.layout}'")
        for key in ("columns", "validation"):
            if getattr(self, key) and self.layout not in ("csv", "folder"):
                raise ValueError(f"`{key}` is of tables of one's own, and the layout here is '{self.layout}'")
        for key in self.columns:
            if key not in COLUMNS:
                raise ValueError(f"`columns` says '{key}'. {nearest(key, COLUMNS)}")
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError("`columns` takes one column for two things")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ValueError(f"`delimiter` is one character, as ';', and not {self.delimiter!r}")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except (LookupError, ValueError):
                raise ValueError(f"`encoding` is one that Python knows, as gb18030, not '{self.encoding}'") from None
        return self

    @property
    def metric_family(self) -> MetricFamily:
        """`metrics`; where the set does not say, those of the catalogue's set of this name and range, else `general`.

        Adapters that were described before this field was are told by their set's name. `mosi` adds metrics to
        `general` and changes none, so a set of one's own on its scale of [-3, 3] has them too; `sims` defines the
        general ones otherwise, so no set gets it by its range.
        """
        namesake = DATASETS.get(self.name)
        if self.metrics is None and namesake is not None and namesake.range == self.range:
            return namesake.metrics or "general"
        on_seven_point_scale = self.range == (-3.0, 3.0)
        return self.metrics or ("mosi" if on_seven_point_scale else "general")

    @property
    def grid(self) -> tuple[float, ...]:
        """The intensities that can be answered: the range in steps of a tenth; empty for emotions."""
        if self.range is None:
            return ()
        low, high = (round(value * 10) for value in self.range)
        return tuple(tenth / 10 for tenth in range(low, high + 1))

    @property
    def key_metric(self) -> str:
        """The validation metric that selects the best epoch (facts: MAE for msa, WF1 for erc)."""
        return "mae" if self.task == "msa" else "wf1"

    @property
    def task_prompt(self) -> str:
        """The prompt as the model reads it, without tags or label."""
        if self.prompt is not None:
            return self.prompt
        if self.range is not None:
            low, high = (f"{value:+.1f}" for value in self.range)
            if self.language == "zh":
                return f"情感强度（{low}消极，{high}积极）="
            # a sign follows "=" naturally; docs/decisions.md has the measured difference
            return f"Sentiment ({low} negative, {high} positive)="
        labels = " ".join(f"{number} {label}" for number, label in enumerate(self.labels or ()))
        return f"情绪（{labels}）：" if self.language == "zh" else f"Emotion ({labels}): "


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
    try:
        return DatasetSpec(**raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "description"
        if first["type"] == "string_type" and isinstance(first["input"], (bool, int, float)):
            from msekit.yaml_file import unquoted

            value, example = unquoted(first["input"])
            what = f"{key} is {value} as YAML reads it, not a text"
            raise MsekitError(what, where=where, fix=f"Write it in quotes: {example}") from error
        raise MsekitError(f"{key}: {first['msg'].removeprefix('Value error, ')}", where=where) from error


def resolve_dataset(name: str, source: Path | None = None, options: Mapping[str, Any] | None = None) -> DatasetSpec:
    """Find a data set by catalogue name or by the path of a YAML that describes it, or describe it by options.

    Args:
        name: `mosei`, `synthetic-erc`, …, or `path/to/set.yaml`, or with options any name of one's own.
        source: Where its features lie; overrides what the YAML says.
        options: `labels`, `range`, `language`, `prompt`, `encoding`, `delimiter`, `columns`, `validation`:
            override what is known; None says nothing. A set that is neither in the catalogue nor in a YAML needs labels
            or a range; its layout is seen from its files.

    Raises:
        MsekitError: No such name or file (the nearest names are offered), or options that do not fit.
    """
    overrides = {key: value for key, value in (options or {}).items() if value is not None}
    if source is not None:
        overrides["source"] = (source := expanded(source)).resolve()
    if name in DATASETS:
        spec = DATASETS[name]
    elif Path(name).suffix.lower() in (".yaml", ".yml"):
        path = expanded(Path(name))
        if not path.is_file():
            raise MsekitError("no such data set description", where=name)
        spec = read_spec(path)
    elif "labels" in overrides or "range" in overrides:
        if source is None:
            raise MsekitError(f"data set '{name}' needs its files", fix="Say where they lie with --source PATH")
        task: Task = "erc" if "labels" in overrides else "msa"
        return _checked({"name": name, "task": task, "layout": layout_of(source, task), **overrides}, name)
    elif source is not None and source.exists():
        fix = "Say what the labels of your own files are: --labels joy,anger,… or --range -3,3"
        raise UnsaidLabelsError(f"unknown data set '{name}', and its labels are not said", where=source, fix=fix)
    else:
        raise MsekitError(f"unknown data set '{name}'", fix=nearest(name, DATASETS) + " A YAML's path works too.")
    return _checked(spec.model_dump() | overrides, name) if overrides else spec


def layout_of(source: Path, task: Task) -> Layout:
    """The layout that a folder's or file's name shows: one's own, or else the published one of the task."""
    if any(source.glob("samples.*")):
        return "folder"
    if source.suffix in (".csv", ".tsv") or any(source.glob("train.[ct]sv")):
        return "csv"
    return "erc-pickle" if task == "erc" else "msa-pickle"

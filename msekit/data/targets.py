"""Targets: the several things that one sample is asked, each one of classes, any number of labels, or a range.

    targets:
      emotion: {classes: [calm, glad, sad, angry]}
      signs: {labels: [smile, frown, tears], weight: 0.5}
      valence: {range: [-3, 3]}

`task: erc` and `task: msa` are shorthands of one target. Everything else sees **questions**: a set of one target is
one question, which is the set itself; classes and a range are a question each, and every one of `labels` is one of its
own, answered by no or yes. A row then has a number for each question, NaN where it has no answer to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from msekit.errors import MsekitError, without_control_characters

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec

SEVERAL = "targets"
"""The task of a set that has several, beside `msa` and `erc`."""
MEAN = "mean"
"""The metric over all targets."""
UNANSWERED = "Leave it out of `targets`, or label some samples."
"""What to do about a question that no training sample answers."""
NO_YES = ("no", "yes")
"""How each of `labels` is answered."""
_RESERVED = {MEAN, SEVERAL, "label"}
_USUAL_KEYS = {"classes": "wf1", "labels": "macro_f1", "range": "mae"}
_Name = Annotated[str, AfterValidator(without_control_characters)]


class Target(BaseModel):
    """One of the things that a sample is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Annotated[tuple[_Name, ...], Field(min_length=2, max_length=10_000)] | None = None
    """One of them is the answer; in the order of their numbers."""
    labels: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=100)] | None = None
    """Any number of them is the answer: each is asked by itself, in some columns of the LLM's pass."""
    range: tuple[float, float] | None = None
    """Lowest and highest value."""
    weight: float = Field(1.0, gt=0, le=1e6)
    """What its loss is multiplied with in the sum of all targets'."""
    aliases: dict[str, str] = Field(default_factory=dict)
    """Spellings of the files → names of classes or labels."""
    prompt: str | None = None
    """The question in one's own words; of `labels` with `{label}` in the label's place. None for the usual wording."""
    metrics: str | tuple[str, ...] | None = None
    """As of a data set: a family (of a range), or metrics by name."""
    key_metric: str = ""
    """Its part in the set's `mean`; where it is not said MAE of a range, WF1 of classes, macro-F1 of labels."""

    @model_validator(mode="after")
    def _one_kind(self) -> Target:
        said = [kind for kind in _USUAL_KEYS if getattr(self, kind) is not None]
        if len(said) != 1:
            raise ValueError("a target is one of `classes: [...]`, `labels: [...]` and `range: [low, high]`")
        names = self.classes or self.labels or ()
        if len(set(names)) < len(names):
            raise ValueError(f"`{self.kind}` must be different names")
        if any(name not in names for name in self.aliases.values()):
            raise ValueError(f"`aliases` lead to names of its `{self.kind}`")
        check_range(self.range)
        if any(name != name.strip() or ";" in name or name == "none" for name in self.labels or ()):
            raise ValueError("one of `labels` begins or ends with a blank, holds a `;`, or is `none`: cells say these")
        if self.labels is not None and self.prompt is not None and "{label}" not in self.prompt:
            raise ValueError("the `prompt` of a target with `labels` holds {label}, in whose place each label stands")
        if isinstance(self.metrics, str) and (self.range is None or self.metrics not in ("general", "mosi", "sims")):
            raise ValueError("`metrics` are names in a list, or of a range a family: general, mosi or sims")
        chosen = self.metrics if isinstance(self.metrics, tuple) else ()
        if not self.key_metric:
            usual = _USUAL_KEYS[self.kind]
            object.__setattr__(self, "key_metric", usual if usual in chosen or not chosen else chosen[0])
        elif chosen and self.key_metric not in chosen:
            raise ValueError(f"`key_metric` is '{self.key_metric}', which is none of its `metrics`")
        if self.key_metric.startswith("per_class_"):
            raise ValueError(f"`key_metric` is one number, and '{self.key_metric}' is one for each class")
        return self

    def in_words(self) -> str:
        """What it is answered with."""
        if self.range is not None:
            return f"{self.range[0]:g} … {self.range[1]:g}"
        return f"any of {', '.join(self.labels)}" if self.labels else ", ".join(self.classes or ())

    def decides_rows(self) -> dict[str, Any]:
        """What its values are read by."""
        return self.model_dump(include={"classes", "labels", "range", "aliases"})

    @property
    def kind(self) -> str:
        """`classes`, `labels` or `range`."""
        return next(kind for kind in _USUAL_KEYS if getattr(self, kind) is not None)


@dataclass(frozen=True)
class Question:
    """What is answered by one number of a row: a whole target, or one of its labels."""

    target: str
    """Its name; empty for a set of one target."""
    label: str | None
    """Of a target with `labels`: which of them is asked, by no or yes."""
    spec: DatasetSpec
    """The set as if this were all that it asks: `erc` with its classes, or `msa` with its range."""
    weight: float = 1.0
    """Of its loss."""

    @property
    def name(self) -> str:
        """`emotion`, or `signs.smile`."""
        return self.target if self.label is None else f"{self.target}.{self.label}"


def check_range(span: tuple[float, float] | None) -> None:
    """A range, where there is one, has room for two answers, which lie a tenth apart.

    Raises:
        ValueError: It has not.
    """
    if span is None:
        return
    if not -100 <= span[0] < span[1] <= 100:
        raise ValueError("`range` must be [low, high] with low < high, both within [-100, 100]")
    if round(span[0] * 10) == round(span[1] * 10):
        raise ValueError("`range` is answered in steps of a tenth, and this one has room for one alone")


def questions_of(spec: DatasetSpec) -> list[Question]:
    """What a set's samples are asked, in the order of a row's numbers."""
    if not spec.targets:
        return [Question("", None, spec)]
    return [
        Question(name, label, _asking(spec, name, target, label), target.weight)
        for name, target in spec.targets.items()
        for label in (target.labels or (None,))
    ]


def of_target(spec: DatasetSpec, name: str) -> DatasetSpec:
    """The set as if a target with classes or a range were all that it asks."""
    return _asking(spec, name, spec.targets[name], None)


def _asking(spec: DatasetSpec, name: str, target: Target, label: str | None) -> DatasetSpec:
    return spec.model_copy(
        update={
            "task": "msa" if target.range else "erc",
            "labels": target.classes if target.labels is None else NO_YES,
            "range": target.range,
            "aliases": target.aliases if target.labels is None else {},
            "prompt": wording(spec.language, name, target, label),
            "metrics": target.metrics if target.labels is None else None,
            "key_metric": target.key_metric,
            "targets": {},
        }
    )


def prompt_of(spec: DatasetSpec) -> str:
    """The prompt of a data set, or those of all its targets, without tags or answer."""
    if spec.targets:
        return " ".join(question.spec.task_prompt.strip() for question in questions_of(spec))
    if spec.prompt is not None:
        return spec.prompt
    if spec.range is not None:
        low, high = (f"{value:+.1f}" for value in spec.range)
        if spec.language == "zh":
            return f"情感强度（{low}消极，{high}积极）="
        # a sign follows "=" naturally; docs/decisions.md has the measured difference
        return f"Sentiment ({low} negative, {high} positive)="
    labels = " ".join(f"{number} {label}" for number, label in enumerate(spec.labels or ()))
    return f"情绪（{labels}）：" if spec.language == "zh" else f"Emotion ({labels}): "


def wording(language: str, name: str, target: Target, label: str | None) -> str:
    """How one question of several is put; the answer follows its last sign.

    Args:
        language: Of the data set.
        name: Of the target.
        target: What it is.
        label: Which of its labels is asked; None for a target without.
    """
    if target.prompt is not None:
        return target.prompt if label is None else target.prompt.replace("{label}", label)
    asked = name.replace("_", " ") if label is None else f"{name.replace('_', ' ')}, {label}"
    chinese = language == "zh"
    if target.range is not None:
        low, high = (f"{value:+.1f}" for value in target.range)
        return f"{asked}（{low}至{high}）=" if chinese else f"{asked.capitalize()} ({low} to {high})="
    numbered = " ".join(f"{number} {one}" for number, one in enumerate(target.classes or NO_YES))
    return f"{asked}（{numbered}）：" if chinese else f"{asked.capitalize()} ({numbered}): "


def behind_the_text(question: Question) -> str:
    """What is left of a question behind the text where its wording stands before it: its name and its last sign."""
    sign = re.search(r"[\s=:：]*$", question.spec.task_prompt).group()  # type: ignore[union-attr]  # at least nothing
    asked = question.target.replace("_", " ")
    return f"{asked}{sign or ': '}" if question.label is None else f"{asked}, {question.label}{sign or ': '}"


def opinions_of(spec: DatasetSpec) -> tuple[tuple[int, tuple[float, ...]], ...]:
    """Classes (0 for a range) and values (none for classes) of each question of several targets; none of one target."""
    asked = questions_of(spec) if spec.targets else []
    return tuple((len(question.spec.labels or ()), question.spec.grid) for question in asked)


def columns_of(spec: DatasetSpec) -> tuple[str, ...]:
    """What a table's row may hold of several targets: `targets`, each target's name, and `target.label`."""
    labels = [question.name for question in questions_of(spec) if question.label is not None]
    return (SEVERAL, *spec.targets, *labels) if spec.targets else ()


def check_targets(spec: DatasetSpec, columns: Sequence[str]) -> None:
    """The keys of a description with several targets go together.

    Raises:
        ValueError: They do not.
    """
    if not spec.targets:
        if spec.task == SEVERAL:
            raise ValueError("`task: targets` needs `targets`, a mapping from names to what each is")
        return
    if spec.task != SEVERAL:
        raise ValueError(f"`targets` goes without `task: {spec.task}`, which is a shorthand of one target")
    for key in ("labels", "range", "prompt", "metrics", "aliases"):
        if getattr(spec, key):
            raise ValueError(f"`{key}` belongs into one of `targets`, where there are several")
    if spec.layout not in ("csv", "folder", "synthetic"):
        raise ValueError(f"`targets` are read from tables of one's own, and the layout here is '{spec.layout}'")
    for name, target in spec.targets.items():
        if not re.fullmatch(r"[^\W\d][\w-]*", name) or name in _RESERVED or name in columns:
            raise ValueError(f"a target cannot be called '{name}': letters, digits, `_` and `-`, and no column's name")
        if spec.language not in ("en", "zh") and target.prompt is None:
            raise ValueError(f"`language: {spec.language}` needs a `prompt` for the target '{name}'")
    prompts = [question.spec.prompt for question in questions_of(spec)]
    if len(set(prompts)) < len(prompts):
        raise ValueError("two targets have the same `prompt`")
    whose, colon, metric = spec.key_metric.partition(":")
    if spec.key_metric != MEAN and not (colon and metric and whose in spec.targets):
        raise ValueError(f"`key_metric` is '{MEAN}' or `target:metric`, not '{spec.key_metric}'")
    if metric.startswith("per_class_"):
        raise ValueError(f"`key_metric` is one number, and '{metric}' is one for each class")


def with_task(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """A description with the task and the key metric that `targets` mean, where it does not say them."""
    if not said.get("targets"):
        return said
    return {"task": SEVERAL, **said, "key_metric": said.get("key_metric") or MEAN}


def refuse_several(spec: DatasetSpec, what: str) -> None:
    """Refuse a set of several targets where something is made for one.

    Args:
        spec: The data set.
        what: What is not possible, as the beginning of a sentence.

    Raises:
        MsekitError: It has several.
    """
    if spec.targets:
        raise only_one(what, list(spec.targets), spec.name)


def only_one(what: str, targets: Sequence[str], where: object = None) -> MsekitError:
    """The refusal of several targets."""
    return MsekitError(
        f"{what} takes one target, and there are {len(targets)}: {', '.join(targets)}",
        where=where,
        fix="Describe one of them as a data set of its own (task erc or msa).",
    )

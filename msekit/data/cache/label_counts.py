"""What the rows of a set are counted by: names of classes, intensities to one decimal, of several targets each by
itself (`emotion:joy`)."""

from __future__ import annotations

from collections.abc import Mapping

from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.unlabelled import is_absent
from msekit.data.targets import questions_of


def label_name(spec: DatasetSpec, label: float) -> str:
    """A label's name in the counts: the class's name, or the intensity to one decimal."""
    return spec.labels[int(label)] if spec.labels else f"{round(label, 1) + 0.0:.1f}"


def label_names(spec: DatasetSpec, label: float | tuple[float, ...]) -> list[str]:
    """What a row counts for; a target's label where it holds."""
    if not isinstance(label, tuple):
        return [] if is_absent(label) else [label_name(spec, label)]
    return [
        f"{question.target}:{question.label or label_name(question.spec, value)}"
        for question, value in zip(questions_of(spec), label, strict=True)
        if not is_absent(value) and (question.label is None or value)
    ]


def unanswered(spec: DatasetSpec, label: float | tuple[float, ...]) -> list[str]:
    """The questions of several targets that a row does not answer."""
    if not isinstance(label, tuple):
        return []
    return [one.name for one, value in zip(questions_of(spec), label, strict=True) if is_absent(value)]


def countable(spec: DatasetSpec) -> list[str]:
    """The names of all classes and labels, which are counted also where no row has them."""
    if not spec.targets:
        return list(spec.labels or ())
    named = {name: target.classes or target.labels or () for name, target in spec.targets.items()}
    return [f"{name}:{label}" for name, labels in named.items() for label in labels]


def in_order(spec: DatasetSpec, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts with intensities from low to high, classes as they stand, targets one after the other."""
    if not spec.targets:
        return dict(counts) if spec.labels else dict(sorted(counts.items(), key=lambda item: float(item[0])))
    places, named = list(spec.targets), set(countable(spec))

    def place(name: str) -> tuple[int, float]:
        target, _, label = name.partition(":")
        return places.index(target), 0.0 if name in named else float(label)

    return dict(sorted(counts.items(), key=lambda item: place(item[0])))

"""How a data set puts its questions to the LLM: its own words, or the usual ones of its task and language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msekit.data.catalogue import DatasetSpec
    from msekit.data.targets import Question, Target


def prompt_of(spec: DatasetSpec) -> str:
    """The prompt of a data set, or those of all its targets, without tags or answer."""
    if spec.targets:
        from msekit.data.targets import questions_of

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


def wording(language: str, name: str, target: Target, label: str | None, no_yes: Sequence[str]) -> str:
    """How one question of several is put; the answer follows its last sign.

    Args:
        language: Of the data set.
        name: Of the target.
        target: What it is.
        label: Which of its labels is asked; None for a target without.
        no_yes: How that is answered.
    """
    if target.prompt is not None:
        return target.prompt if label is None else target.prompt.replace("{label}", label)
    asked = name.replace("_", " ") if label is None else f"{name.replace('_', ' ')}, {label}"
    chinese = language == "zh"
    if target.range is not None:
        low, high = (f"{value:+.1f}" for value in target.range)
        return f"{asked}（{low}至{high}）=" if chinese else f"{asked.capitalize()} ({low} to {high})="
    numbered = " ".join(f"{number} {one}" for number, one in enumerate(target.classes or no_yes))
    return f"{asked}（{numbered}）：" if chinese else f"{asked.capitalize()} ({numbered}): "


def behind_the_text(question: Question) -> str:
    """What is left of a question behind the text where its wording stands before it: its name and its last sign."""
    sign = re.search(r"[\s=:：]*$", question.spec.task_prompt).group()  # type: ignore[union-attr]  # at least nothing
    return f"{question.name.replace('_', ' ')}{sign or ': '}"

"""The constant text of a sequence: the tags around the pseudo tokens and the text, and where the task prompt stands;
and the cue behind a text that the LLM reads by itself.

Apart from `prompt.py`, so that a plan can count the constant tokens without torch.
"""

import hashlib
import re

from msekit.data.catalogue import DatasetSpec
from msekit.settings.choices import Layout

OPENING_TAG = "<av>"  # the backbone reads the tags of every sample: short ones save a tenth of the tokens
CLOSING_TAG = "</av>"
CUES = {
    ("msa", "en"): " Sentiment of the speaker (negative or positive):",
    ("erc", "en"): " Emotion of the speaker:",
    ("msa", "zh"): "说话人的情感（消极或积极）：",
    ("erc", "zh"): "说话人的情绪：",
}
"""Task and language → what is put behind a text, so that the LLM's hidden states gather what the task asks for."""


def standard_cue(spec: DatasetSpec) -> str:
    """What is put behind a text of a data set: for a language without a cue here, the task's own prompt."""
    if spec.targets:
        names = [name.replace("_", " ") for name in spec.targets]
        return f"说话人的{'、'.join(names)}：" if spec.language == "zh" else f" The speaker's {', '.join(names)}:"
    return CUES.get((spec.task, spec.language), f" {spec.task_prompt.strip()}")


def constant_parts(prompt: str, order: Layout = "paper", several: bool = False) -> tuple[str, str]:
    """The text between bos and the pseudo tokens, and the text between the sample's text and its answer.

    The words of several targets stand behind that, each in a branch of its own, or as one prompt before the tokens.
    """
    if several:
        return OPENING_TAG if order == "paper" else f"{prompt} {OPENING_TAG}", CLOSING_TAG
    if order == "paper":
        return OPENING_TAG, f"{CLOSING_TAG} {prompt}"
    cue = re.search(r"[\s=:：]*$", prompt).group()  # type: ignore[union-attr]  # matches at least nothing
    return f"{prompt.removesuffix(cue)} {OPENING_TAG}", f"{CLOSING_TAG}{cue}"


def layout_sha256(prompt: str, order: Layout = "paper", cues: tuple[str, ...] = ()) -> str:
    """sha256 of the constant text; two runs that lay out their sequences alike share it."""
    return hashlib.sha256("|".join((*constant_parts(prompt, order, bool(cues)), *cues)).encode()).hexdigest()

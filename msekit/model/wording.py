"""The constant text of a sequence: the tags around the pseudo tokens and the text, and where the task prompt stands.

Apart from `prompt.py`, so that a plan can count the constant tokens without torch.
"""

import hashlib
import re
from typing import Literal

OPENING_TAG = "<av>"  # the backbone reads the tags of every sample: short ones save a tenth of the tokens
CLOSING_TAG = "</av>"


Order = Literal["paper", "prompt-first"]


def constant_parts(prompt: str, order: Order = "paper") -> tuple[str, str]:
    """The text between bos and the pseudo tokens, and the text between the sample's text and its answer."""
    if order == "paper":
        return OPENING_TAG, f"{CLOSING_TAG} {prompt}"
    cue = re.search(r"[\s=:：]*$", prompt).group()  # type: ignore[union-attr]  # matches at least nothing
    return f"{prompt.removesuffix(cue)} {OPENING_TAG}", f"{CLOSING_TAG}{cue}"


def layout_sha256(prompt: str, order: Order = "paper") -> str:
    """sha256 of the constant text; two runs that lay out their sequences alike share it."""
    return hashlib.sha256("|".join(constant_parts(prompt, order)).encode()).hexdigest()

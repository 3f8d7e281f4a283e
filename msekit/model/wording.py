"""The tags around what the plug-in says. Apart from the layout, so that a plan can count them without torch."""

import hashlib
import re

from msekit.settings.choices import Layout

OPENING_TAG = "<av>"  # tags are read at every step of every sample: short ones save a tenth of the tokens
CLOSING_TAG = "</av>"


Order = Layout


def constant_parts(prompt: str, order: Order = "paper") -> tuple[str, str]:
    """What stands before the pseudo tokens (after bos) and after the text."""
    if order == "paper":
        return OPENING_TAG, f"{CLOSING_TAG} {prompt}"
    cue = re.search(r"[\s=:：]*$", prompt).group()  # type: ignore[union-attr]  # matches at least nothing
    return f"{prompt.removesuffix(cue)} {OPENING_TAG}", f"{CLOSING_TAG}{cue}"


def layout_sha256(prompt: str, order: Order = "paper") -> str:
    """What two runs share whose sequences are laid out alike: sha256 of the tags and the prompt."""
    return hashlib.sha256("|".join(constant_parts(prompt, order)).encode()).hexdigest()

"""Defaults by the kind of extractor: what stands still in descriptors does not in an encoder's states."""

from __future__ import annotations

from typing import Any

import pytest

from msekit.data.extractor import Extractor
from msekit.settings.resolve import resolve

STATES = Extractor(name="hubert-base", version="1", settings={"layers": "last4"})
DESCRIPTORS = Extractor(name="egemaps", version="1")
NAMED: dict[str, Any] = {"backbone": "tiny-llama", "dataset": "own", "output": "x"}


@pytest.mark.parametrize(
    ("recipe", "extractors", "trim"),
    [
        ("kit", {"audio": STATES}, 0.0),
        ("best", {"audio": STATES, "vision": STATES, "text": DESCRIPTORS}, 0.0),
        ("kit", {"audio": STATES, "vision": DESCRIPTORS}, 0.3),
        ("kit", {"text": STATES}, 0.3),
        ("kit", {}, 0.3),
        ("paper", {"audio": DESCRIPTORS}, 0.0),
    ],
)
def test_only_sets_of_states_are_not_trimmed(recipe: str, extractors: dict[str, Extractor], trim: float) -> None:
    config = resolve({**NAMED, "recipe": recipe}, task="erc", extractors=extractors)
    assert config.data.trim == trim
    chosen = resolve({**NAMED, "recipe": recipe}, task="erc", extractors=extractors, overrides=["data.trim=0.1"])
    assert chosen.data.trim == 0.1

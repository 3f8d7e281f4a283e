"""Table 4 of the paper as data: which parts of the MSE-Adapter each of its rows keeps. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ablation = Literal["no-audio", "no-vision", "no-text", "no-audio-vision", "no-tgm", "no-msf"]
Input = Literal["features", "random", "absent"]
"""What a modality's projection (W_a, W_v) reads: the LSTM's state over the features, a random vector of that size in
the state's place, or nothing, and then there is neither LSTM nor projection."""


@dataclass(frozen=True)
class AdapterParts:
    """What is built of the MSE-Adapter, and what it reads; the defaults are the whole of it."""

    audio: Input = "features"
    vision: Input = "features"
    text: bool = True
    """Whether the text is read, by the LLM and by the adapter."""
    tgm: bool = True
    """Whether the text guides the modalities (Text-Guide Mixer); without it they are added as they are."""
    msf: bool = True
    """Whether the mixture passes the Multi-Scale Fusion."""

    @property
    def absent(self) -> frozenset[str]:
        """Modalities that nothing is built for."""
        return frozenset(
            name for name, source in (("audio", self.audio), ("vision", self.vision)) if source == "absent"
        )

    @property
    def random(self) -> bool:
        """Whether random vectors stand in for the features."""
        return "random" in (self.audio, self.vision)

    @property
    def reads_the_sample(self) -> bool:
        """Whether it reads a sample's own text and features: one that does not is an experiment, never a plug-in."""
        return self.text and not self.random


WHOLE = AdapterParts()
ABLATIONS: dict[Ablation, AdapterParts] = {
    "no-audio": AdapterParts(audio="absent"),
    "no-vision": AdapterParts(vision="absent"),
    "no-text": AdapterParts(text=False, tgm=False),
    "no-audio-vision": AdapterParts(audio="random", vision="random"),
    "no-tgm": AdapterParts(tgm=False),
    "no-msf": AdapterParts(msf=False),
}
"""The rows of Table 4."""


def parts_of(ablate: Ablation | None) -> AdapterParts:
    """The parts that an ablation keeps; all of them without one."""
    return WHOLE if ablate is None else ABLATIONS[ablate]

"""BASELINES: what a plug-in must beat. Adding a network is its file and one entry here. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from msekit.added import Table
from msekit.errors import MsekitError, nearest

Need = Literal["dialogues", "labels by modality", "intensities", "frames"]
"""What a data set may lack: dialogues with speakers; a label of each modality by itself; audio or vision at all."""


@dataclass(frozen=True)
class Entry:
    """A baseline."""

    network: str | Callable[..., Any] | None
    """Made from `Sizes`: `file:Class` in `msekit/baselines/`, of another package the class itself; None for the linear
    models, which are no networks."""
    row: str | None = None
    """Its name in Tables 2 and 3; None for one that they do not have."""
    apart: str = ""
    """What is otherwise than in its paper, in one line."""
    level: Literal["tokens", "sentence", "llm"] = "tokens"
    """Whether it reads every token of a text, the text as a whole, or trains through a frozen LLM that reads it."""
    needs: tuple[Need, ...] = ("frames",)
    rate: float = 1e-3
    """Of AdamW; as published where `apart` does not say otherwise."""
    decay: float = 0.01
    batch: int = 32
    """Samples of a step; dialogues, for one that needs them."""
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    frames: int = 16
    """Longer sequences of audio and vision are averaged down to this many."""


FROZEN = "text encoder frozen"
OWN = "settings are this kit's"
_SEQUENCES: dict[str, Any] = {"frames": 50}
_WHOLE: dict[str, Any] = {"level": "sentence"}
_DIALOGUES: dict[str, Any] = {"level": "sentence", "needs": ("dialogues", "frames"), "batch": 8}

_OWN: dict[str, Entry] = {
    "text-linear": Entry(None, needs=()),
    "llm-linear": Entry(None, needs=()),
    "ef-lstm": Entry("models:EarlyFusion", needs=()),
    "lf-lstm": Entry("models:LateFusion", needs=()),
    "tfn": Entry("models:TensorFusion", "TFN", OWN, needs=()),
    "lmf": Entry("models:LowRankFusion", "LMF", OWN, needs=()),
    "mult": Entry(
        "mult:MulT", "MulT", "padding masked, no causal mask, at most 50 frames", clip=0.8, decay=0.0, **_SEQUENCES
    ),
    "eft": Entry("eft_lft:EarlyTransformer", "EFT", f"defined by its name; {OWN}", **_SEQUENCES),
    "lft": Entry("eft_lft:LateTransformer", "LFT", f"defined by its name; {OWN}", **_SEQUENCES),
    "pmr": Entry("pmr:PMR", "PMR", f"no code of the authors; at most 16 frames; {OWN}", clip=0.8),
    "lfmim": Entry("lfmim:LFMIM", "LFMIM", "64 wide instead of 1024, padding masked, AdamW", **_SEQUENCES),
    "mmgcn": Entry("mmgcn:MMGCN", "MMGCN", "4 layers, focal loss on the true class", decay=0.0, **_DIALOGUES),
    "mm-dfn": Entry("mm_dfn:MMDFN", "MM-DFN", "16 layers", rate=5e-4, decay=1e-4, **_DIALOGUES),
    "ga2mif": Entry(
        "ga2mif:GA2MIF",
        "GA2MIF",
        "three errors of its code mended; small first speaker vectors; lr 1e-4 instead of 1e-5",
        rate=1e-4,
        **_DIALOGUES,
    ),
    "emocaps": Entry("emocaps:EmoCaps", "EmoCaps", f"Emoformer from the paper's words; {OWN}", rate=5e-4, **_DIALOGUES),
    "misa": Entry("misa:MISA", "MISA", FROZEN, rate=1e-4, decay=0.0, **_WHOLE),
    "self-mm": Entry(
        "self_mm:SelfMM", "Self-MM", FROZEN, level="sentence", needs=("frames", "intensities"), decay=0.001
    ),
    "mmim": Entry("mmim:MMIM", "MMIM", f"{FROZEN}, a projection on it trained", decay=1e-4, **_WHOLE),
    "av-mc": Entry(
        "av_mc:AVMC",
        "AV-MC",
        "supervised form; lr 1e-3 for all",
        level="sentence",
        needs=("frames", "labels by modality"),
        decay=5e-4,
    ),
    "mag-head": Entry(
        "llm_heads:mag_head",
        "MAG-BERT",
        "frozen LLM behind the shift; frames shared evenly over tokens",
        level="llm",
    ),
    "chfn-head": Entry(
        "llm_heads:chfn_head", "CHFN", "frozen LLM behind the shift; its module inferred from a count", level="llm"
    ),
    "unimse-adapter": Entry(
        "written_labels:UniMSEAdapter",
        None,
        "its adapter alone, in a frozen LLM; one data set, no borrowed labels",
        level="llm",
        rate=1e-4,
        batch=16,
    ),
    "unisa-input": Entry(
        "written_labels:unisa_input",
        None,
        "its input alone, before a frozen LLM; one data set, no pre-training",
        level="llm",
        rate=1e-4,
        batch=16,
    ),
    "av-mixup": Entry("av_mc:AVMC", None, "AV-MC with the sample's label for every modality", decay=5e-4, **_WHOLE),
}
BASELINES: Table[Entry] = Table("baselines", Entry, _OWN)
"""Name → entry. The linear models: of the words (`text_linear.py`), of a frozen LLM's hidden states
(`llm_linear.py`)."""
READS_LLM = "llm-linear"
"""The linear one that needs a backbone."""


def needs_llm(name: str) -> bool:
    """Whether a baseline is nothing without a backbone."""
    return name == READS_LLM or BASELINES[name].level == "llm"


def check_text(
    name: str, backbone: str | None, text_from: str, sentence: str = "last", as_llm_reads: bool = False
) -> None:
    """Refuse a baseline without the LLM that it is to read, and one that reads none with one.

    Args:
        name: Of the baseline.
        backbone: The LLM.
        text_from: What is read of a text.
        sentence: Which state stands for a whole text.
        as_llm_reads: Whether it is said what the LLM reads: context, or the longest text.

    Raises:
        MsekitError: Either; no such baseline; or one with a text of another kind than its own.
    """
    if name not in BASELINES:
        raise MsekitError(f"unknown baseline '{name}'", fix=nearest(name, BASELINES.names))
    if needs_llm(name) and backbone is None:
        raise MsekitError(
            f"{name} reads the hidden states of an LLM, and none is named",
            where="--backbone",
            fix="Name the LLM of the runs that it is to be compared with: --backbone smollm2-135m.",
        )
    if (BASELINES[name].network is None or needs_llm(name)) and text_from != "words":
        raise MsekitError(f"{name} has a text of its own", where="--text-from", fix="Leave it out.")
    if as_llm_reads and (BASELINES[name].level == "llm" or (text_from != "backbone" and name != READS_LLM)):
        raise MsekitError(
            f"{name} does not read hidden states, and they alone have a context",
            where="--context, --text-limit",
            fix="--text-from backbone, for a baseline that can.",
        )
    if sentence != "last" and BASELINES[name].level != "sentence":
        raise MsekitError(f"{name} reads a text token by token", where="--sentence", fix="Leave it out.")
    if text_from == "backbone" and backbone is None:
        raise MsekitError(
            "the text is to be read by an LLM, and none is named", where="--backbone", fix="Name it: smollm2-135m."
        )
    if backbone is not None and text_from != "backbone" and not needs_llm(name):
        raise MsekitError(
            f"{name} reads no LLM",
            where="--backbone",
            fix=f"Leave it out, use the baseline {READS_LLM}, or let it read the LLM's hidden states: "
            "--text-from backbone.",
        )

"""BASELINES: what a plug-in must beat. Adding a network is one entry here and its class in `models.py`. No torch."""

from __future__ import annotations

from typing import Any

from msekit.added import Table
from msekit.errors import MsekitError

BASELINES: Table[Any] = Table(
    "baselines",
    type,
    {
        "text-linear": None,
        "llm-linear": None,
        "ef-lstm": "EarlyFusion",
        "lf-lstm": "LateFusion",
        "tfn": "TensorFusion",
        "lmf": "LowRankFusion",
    },
)
"""Name → class (of msekit's own its name in `models.py`), made from (vocabulary, widths, outputs); None for the linear
models, which are no networks: of the words (`text_linear.py`), of the frozen LLM's hidden states (`llm_linear.py`)."""
READS_LLM = "llm-linear"
"""The one that needs a backbone."""


def check_backbone(name: str, backbone: str | None) -> None:
    """Refuse a baseline that lacks its LLM, and one that reads none with one.

    Raises:
        MsekitError: Either.
    """
    if name == READS_LLM and backbone is None:
        raise MsekitError(
            f"{name} reads the hidden states of an LLM, and none is named",
            where="--backbone",
            fix="Name the LLM of the runs that it is to be compared with: --backbone smollm2-135m.",
        )
    if name != READS_LLM and backbone is not None:
        raise MsekitError(
            f"{name} reads no LLM", where="--backbone", fix=f"Leave it out, or use the baseline {READS_LLM}."
        )

"""The ways to hold a frozen LLM, and figures of theirs that a plan needs: nothing here imports torch."""

from __future__ import annotations

from msekit.errors import MsekitError

KINDS = ("none", "int8", "nf4", "w8a8")
FOUR_BIT_BLOCK = 64
"""nf4: weights that share one scale; a row must hold a whole number of such blocks."""
NESTED_BLOCK = 256
"""nf4, double: scales that share one scale."""
PACKED_MOST = 3 << 29
"""Bytes that copies of an LLM's weights, laid out for their products on a CPU, may take (`products.py`)."""


def check_kind(quantization: str, device: str) -> None:
    """Refuse an unknown kind, and one that a device does not do.

    Raises:
        MsekitError: Not one of `KINDS`, or w8a8 on anything but a CPU.
    """
    if quantization not in KINDS:
        raise MsekitError(f"unknown quantization '{quantization}'", fix="Use none, int8, nf4 or, on a CPU, w8a8.")
    if quantization == "w8a8" and device != "cpu":
        raise MsekitError(
            f"w8a8 multiplies integers on a CPU, not on {device}",
            where="model.quantization",
            fix="Use --quantization int8, which rounds activations on a GPU too.",
        )

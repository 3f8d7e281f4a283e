"""The ways to hold a frozen LLM and to compute its pass, by name, and figures of theirs that a plan needs. No torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, get_args

from msekit.errors import MsekitError, choice

Quantization = Literal["none", "int8", "nf4"]
KINDS: tuple[Quantization, ...] = get_args(Quantization)
"""As it is, LLM.int8 (Dettmers et al. 2022) and QLoRA's NormalFloat (Dettmers et al. 2023), by bitsandbytes."""
FOUR_BIT_BLOCK = 64
"""nf4: weights that share one scale; a row must hold a whole number of such blocks."""
NESTED_BLOCK = 256
"""nf4, double: scales that share one scale."""
WAYS = ("prefix", "last-layer", "lean-parts", "joined", "triton", "written-out", "compiled")
"""Shorter ways through a frozen LLM (`model.passes`); `passes/choose.py` says what each is."""
LAID_OUT_ON = "AuthenticAMD"
"""The vendor of CPUs on which weights laid out once are multiplied faster (1.1 times in a training step); on Intel's
torch's own products are (benchmarks/speed/RESULTS.md)."""
MULTIPLE = 8
"""What the keys are padded to a multiple of for a GPU or a compiled pass, so that few sizes come up; kernels that want
their masks aligned want it so."""
PACKED_MOST = 3 << 29
"""Bytes that copies of an LLM's weights, laid out for their products on a CPU, may take (`cpu/packed_products.py`)."""


def held_today(quantization: str) -> str:
    """How to hold what an earlier run held: `w8a8` was LLM.int8's weights, with activations rounded on a CPU too."""
    return "int8" if quantization == "w8a8" else quantization


def check_kind(quantization: str) -> None:
    """Refuse an unknown kind.

    Raises:
        MsekitError: Not one of `KINDS`.
    """
    if quantization not in KINDS:
        raise MsekitError(f"unknown quantization '{quantization}'", fix=f"Use {choice(KINDS)}.")


def check_ways(passes: object) -> str | tuple[str, ...]:
    """`auto`, `plain`, or names of `WAYS`: one alone, or several, as settings give them.

    Returns:
        The same, names as a tuple.

    Raises:
        ValueError: Another name.
    """
    if isinstance(passes, str):
        names: object = (passes,)
        if passes in ("auto", "plain"):
            return passes
    else:
        names = passes
    if not isinstance(names, list | tuple):
        raise ValueError(f"neither auto, plain nor a list of {choice(WAYS)}")
    if unknown := [name for name in names if name not in WAYS]:
        raise ValueError(f"no way through the LLM is named '{unknown[0]}'; known are auto, plain, {', '.join(WAYS)}")
    return tuple(names)


@cache
def cpu_vendor() -> str:
    """This CPU's vendor as it names itself; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")

"""The precision that an LLM is held in where none is asked for.

A GPU that multiplies bf16 numbers itself gets bf16, any other fp16. A CPU gets fp32 from `load_backbone`; a run
(`model.dtype: auto`) gets bf16 where the CPU has a unit for it and products of the LLM's own size are found to be
quicker by half at least: several times on a CPU with AMX, never on one that would have to imitate it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msekit.backbones.shape import shape_of
from msekit.errors import MsekitError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_UNITS = ("amx_bf16", "avx512_bf16")
FP16_UNITS = ("amx_fp16", "avx512_fp16", "fp16_arith")
"""Of a CPU, as `torch.cpu.get_capabilities` calls them."""
WORTH = 1.5
"""How many times as quick bf16 must be on a CPU: less than that goes into the casts around the products."""
_NARROWEST = 256
"""Of an LLM whose products are worth timing: a narrower one is quick in any precision."""
_ROWS, _ROUNDS = 512, 5


def abilities() -> Mapping[str, Any]:
    """This CPU's, by torch's names."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    older = {"amx_bf16": "amx_tile", "avx512_bf16": "avx512_bf16"}
    checks = {unit: getattr(torch.cpu, f"_is_{name}_supported", bool) for unit, name in older.items()}
    return {unit: asks() for unit, asks in checks.items()}


def default_device() -> torch.device:
    """A GPU where there is one, the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_dtype(device: torch.device) -> str:
    """On a GPU `bf16` where it is not imitated, else `fp16`; `fp32` on a CPU."""
    if device.type != "cuda":
        return "fp32"
    from msekit.gpu import card_at_hand  # which whoever uses a plug-in on a CPU need not load

    card = card_at_hand()
    return "fp32" if card is None else card.default_dtype


def named(dtype: str | torch.dtype) -> str:
    """`fp32`, `bf16` or `fp16`, from that name or from torch's type.

    Raises:
        MsekitError: Anything else.
    """
    name = next((name for name, kind in DTYPES.items() if kind == dtype), dtype)
    if not isinstance(name, str) or name not in DTYPES:
        known = ", ".join(f"{name} ({kind})" for name, kind in DTYPES.items())
        raise MsekitError(f"an LLM is not held in {dtype!r}", where="dtype", fix=f"Known: {known}.")
    return name


def run_dtype(folder: Path, quantization: str, device: torch.device) -> str:
    """The precision of a run with a checkpoint, where its settings leave it open.

    Several processes on CPUs take fp32, for they may be quick in different ones; so do quantised weights, whose
    products are another matter.
    """
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if device.type != "cpu" or together or quantization != "none" or not has_bf16_unit():
        return default_dtype(device)
    figures = shape_of(str(folder)).architecture
    width, inner = figures.hidden_size, figures.intermediate_size
    return "bf16" if min(width, inner) >= _NARROWEST and times_as_quick_in_bf16(width, inner) >= WORTH else "fp32"


def dtype_here(trained: str | None, device: torch.device) -> str | None:
    """How to hold here what was trained elsewhere: alike, unless it would have to be imitated.

    That is bf16 and fp16 on a CPU without a unit for them, which gets fp32, and bf16 on a GPU without, which gets fp16.

    Args:
        trained: torch's name of the precision; None where it is not known.
        device: Where it is to be held.
    """
    units = {"bfloat16": BF16_UNITS, "float16": FP16_UNITS}.get(trained or "")
    if units and device.type == "cpu" and not has_unit(units):
        return "fp32"
    if trained == "bfloat16" and device.type == "cuda":
        return default_dtype(device)
    return next((name for name, kind in DTYPES.items() if str(kind) == f"torch.{trained}"), None)


def has_bf16_unit() -> bool:
    """Whether this CPU multiplies bf16 numbers itself."""
    return has_unit(BF16_UNITS)


def has_unit(names: tuple[str, ...]) -> bool:
    """Whether this CPU has one of the units."""
    return any(abilities().get(unit) for unit in names)


@cache
def times_as_quick_in_bf16(width: int, inner: int) -> float:
    """How many times as quick as fp32's this CPU's bf16 products (512, width) x (width, inner) are; in milliseconds."""
    x, weight = torch.ones(_ROWS, width), torch.ones(inner, width)
    plain, short = (_seconds(x.to(dtype), weight.to(dtype)) for dtype in (torch.float32, torch.bfloat16))
    return plain / short


def _seconds(x: Tensor, weight: Tensor) -> float:
    taken = []
    for _ in range(_ROUNDS + 1):
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])

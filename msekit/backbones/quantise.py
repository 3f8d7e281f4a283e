"""8- and 4-bit backbones through bitsandbytes, on a CPU and on a GPU.

Only the linear layers inside the decoder are quantised; embeddings, norms and the LM head keep the backbone's dtype.
The gradient still passes through to whatever was fed in, here the pseudo tokens.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from msekit.backbones.holding import FOUR_BIT_BLOCK
from msekit.errors import MsekitError, needs_extra


def quantization_config(quantization: str, double: bool, dtype: torch.dtype) -> Any:
    """What `from_pretrained` needs to quantise while loading; None for `none`.

    Args:
        quantization: `none`, `int8` (LLM.int8) or `nf4` (QLoRA's 4-bit NormalFloat).
        double: Quantise the scales of nf4 too.
        dtype: What nf4 weights are expanded to when they are multiplied.

    Raises:
        MsekitError: bitsandbytes is missing or unusable on this machine.
    """
    if quantization == "none":
        return None
    try:
        _import_bitsandbytes()
    except Exception as error:  # a library whose native part cannot be loaded raises what it likes
        what = f"{quantization} needs bitsandbytes, which cannot be imported: {error}"
        raise needs_extra(what, "quant", "use --quantization none") from error
    from transformers import BitsAndBytesConfig

    if quantization != "nf4":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=dtype,
    )


def check_quantised(model: nn.Module, quantization: str) -> None:
    """Refuse a model whose layers cannot be held as asked.

    Raises:
        MsekitError: Nothing in it could be quantised, or in 4 bit a row is no whole number of blocks.
    """
    layers = dict(quantised_layers(model))
    if quantization != "none" and not layers:
        raise MsekitError(f"{type(model).__name__} has no linear layers that {quantization} can hold")
    for name, layer in layers.items():
        if quantization == "nf4" and layer.in_features % FOUR_BIT_BLOCK:
            raise MsekitError(
                f"4 bit needs input widths divisible by {FOUR_BIT_BLOCK}; {name} has {layer.in_features}",
                fix="Use --quantization int8 or none for this backbone.",
            )


def settle(model: nn.Module) -> None:
    """Keep bitsandbytes from swapping kernels between scoring and training on a CPU. Call it after `eval()`.

    Its 4-bit layers in eval mode repack their weights for a CPU kernel without a backward pass the first time they
    are used without a gradient: scores change, and the next training step learns nothing. Its 8-bit layers in eval
    mode take a slower path that rounds the activations too.
    """
    for _, layer in quantised_layers(model):
        layer.train(layer.weight.device.type == "cpu")


def mixes_columns(model: nn.Module) -> bool:
    """Whether what a layer makes of one token depends on the others: in 8 bit on a GPU, a feature is rounded or not by
    its largest value among all tokens."""
    return any(hasattr(layer, "state") and layer.weight.is_cuda for _, layer in quantised_layers(model))


def quantization_state(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """What quantised layers hold beside their parameters, by name: scales, code tables, scales of scales."""
    for name, layer in quantised_layers(model):
        weight = layer.weight
        if hasattr(layer, "state"):  # 8 bit
            yield f"{name}.weight.SCB", row_scales(layer)
            continue
        for part, state in (("", weight.quant_state), ("nested.", weight.quant_state.state2)):
            if state is not None:
                yield f"{name}.weight.{part}absmax", state.absmax
                yield f"{name}.weight.{part}code", state.code
        if weight.quant_state.offset is not None:
            yield f"{name}.weight.offset", weight.quant_state.offset


def row_scales(layer: Any) -> Tensor:
    """The largest weight of each row (N) of an 8-bit layer: at its first use it takes them from its parameter."""
    return layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB


def quantised_layers(model: nn.Module) -> Iterable[tuple[str, Any]]:
    """Layers of bitsandbytes, told by what they carry so that nothing is imported where nothing is quantised."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith("bitsandbytes.") and isinstance(module, nn.Linear):
            yield name, module


_NEEDLESS = {
    # 8-bit layers say at every call that fp32 and bf16 inputs are cast
    "bitsandbytes.autograd._functions": "inputs will be cast",
    # said at import when the kernel below is not fetched
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
}
"""Logger → the beginning of the one warning of its that helps nobody."""


def _import_bitsandbytes() -> None:
    """Import it without what it would fetch from the hub, and run, where the package `kernels` is installed."""
    for name, text in _NEEDLESS.items():
        logger = logging.getLogger(name)
        if not logger.filters:
            logger.addFilter(partial(_says_otherwise, text))
    if sys.modules.get("bitsandbytes") is not None:
        return
    fetcher = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        if fetcher is not None:
            sys.modules["kernels"] = fetcher


def _says_otherwise(text: str, record: logging.LogRecord) -> bool:
    return text not in record.msg

"""A random backbone of a published shape, made where it is used: nothing is written, read, copied or fingerprinted.

A 7B checkpoint takes minutes to draw, write and load; its tensors drawn on the card take seconds. In 8 and 4 bit the
decoder's linear layers are quantised as loading a checkpoint would do it, one after the other.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msekit.backbones.backbone import Backbone
from msekit.backbones.checkpoints.known_formats import format_of
from msekit.backbones.load import _load_tokenizer
from msekit.backbones.passes.agree import decoder_layers
from msekit.backbones.passes.choose import PassSettings
from msekit.backbones.quantise import check_quantised, quantization_config
from msekit.testing.random_checkpoint import TOKENIZERS


def backbone_on(
    raw: dict[str, Any], folder: Path, device: torch.device, kind: str = "none", checkpointing: bool = False
) -> Backbone:
    """Make one.

    Args:
        raw: config.json, as published.
        folder: Where its configuration and its made-up tokenizer are written, a few megabytes.
        device: Where its weights are drawn.
        kind: `none` (bf16), `int8` or `nf4`.
        checkpointing: Recompute layers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    TOKENIZERS[raw["model_type"]](folder, raw)
    (folder / "config.json").write_text(json.dumps(raw))
    model = model_on(raw, device)
    if kind != "none":
        quantise(model, kind)
        check_quantised(model, kind)
    settings = PassSettings(recompute=checkpointing)
    return Backbone(folder.name, model, _load_tokenizer(folder), "random", settings)


def model_on(raw: dict[str, Any], device: torch.device) -> Any:
    """The architecture in bf16, drawn on the device: norms near 1, matrices that keep the size of their input."""
    import transformers

    raw = {key: value for key, value in raw.items() if key != "auto_map"}
    if published := format_of(raw):
        config, kind = published.native_config(raw), published.model_class
        config.tie_word_embeddings = bool(raw.get("tie_word_embeddings"))
    else:
        config, kind = transformers.AutoConfig.for_model(**raw), transformers.AutoModelForCausalLM
    make = getattr(kind, "_from_config", None) or kind.from_config
    attention = "sdpa" if device.type == "cuda" else "eager"
    with torch.device(device):
        model = make(config, dtype=torch.bfloat16, attn_implementation=attention)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim == 1:
                tensor.normal_(0.0 if name.endswith("bias") else 1.0, 0.1, generator=generator)
            else:
                scale = 0.5 if "embed" in name else 1 / math.sqrt(tensor.shape[1])
                tensor.normal_(0.0, scale, generator=generator)
    return model


def quantise(model: nn.Module, kind: str) -> None:
    """Put bitsandbytes' layers in the place of the decoder's linear ones."""
    quantization_config(kind, False, torch.bfloat16)  # imports the library, or says why it cannot be
    for layer in decoder_layers(model):
        for name, linear in [part for part in layer.named_modules() if type(part[1]) is nn.Linear]:
            parent, _, child = name.rpartition(".")
            setattr(layer.get_submodule(parent), child, held_in(kind, linear))


def held_in(kind: str, linear: nn.Linear) -> nn.Module:
    """A linear layer in 8 or 4 bit, where it is."""
    import bitsandbytes as bnb

    sizes: Any = (linear.in_features, linear.out_features, linear.bias is not None)
    device = linear.weight.device
    if kind == "nf4":
        held = bnb.nn.Linear4bit(
            *sizes, compute_dtype=torch.bfloat16, compress_statistics=False, quant_type="nf4", device="meta"
        )
        kept: dict[str, Any] = {"requires_grad": False, "compress_statistics": False, "quant_type": "nf4"}
        held.weight = bnb.nn.Params4bit(linear.weight.data, module=held, **kept)._quantize(device)
    else:
        held = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0, device="meta")
        weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
        held.weight = weight._quantize(device)
    held.bias = linear.bias
    return held

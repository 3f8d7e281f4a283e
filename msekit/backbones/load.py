"""Load a frozen backbone: a catalogue name, a local folder or a hub id of any causal LM that transformers knows.

No code from a checkpoint's repository ever runs, and a checkpoint whose tensors do not match its architecture is
refused.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.integrations import is_deepspeed_zero3_enabled

from msekit.backbones.backbone import Backbone
from msekit.backbones.checkpoints.known_formats import format_of
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.backbones.checkpoints.quiet import quiet_transformers
from msekit.backbones.checkpoints.stated import ONE_THAT_WRITES, WRITERS, stated_class
from msekit.backbones.checkpoints.weight_files import read_config, tensor_shapes
from msekit.backbones.fingerprint import fingerprint_checkpoint, fingerprint_configuration
from msekit.backbones.holding import check_kind, check_ways
from msekit.backbones.passes.choose import PassSettings
from msekit.backbones.precision import DTYPES, default_device, default_dtype, named
from msekit.backbones.quantise import check_quantised, quantization_config
from msekit.backbones.shape import refuse_absurd_sizes
from msekit.errors import MsekitError

_LOGGER = logging.getLogger("msekit")


def load_backbone(
    name_or_path: str,
    quantization: str = "none",
    dtype: str | torch.dtype | None = None,
    device: torch.device | str | None = None,
    checkpointing: bool = False,
    double_quantization: bool = False,
    passes: str | tuple[str, ...] = "auto",
    compiled: bool = False,
) -> Backbone:
    """Load and freeze an LLM.

    Args:
        name_or_path: Catalogue name, folder or hub id.
        quantization: `none`, `int8` or `nf4`; all but the first need bitsandbytes.
        dtype: `fp32`, `bf16` or `fp16`, or torch's type; None for bf16 or fp16 on a GPU, whichever it has, and fp32 on
            a CPU.
        device: Where to put it; None for a GPU if there is one.
        checkpointing: Recompute each layer in the backward pass instead of keeping its activations.
        double_quantization: Quantise the scales of nf4 too.
        passes: Shorter ways that its pass may take: `auto` for every one that works, `plain` for none, or names
            (`prefix`, `last-layer`, `lean-parts`, `joined`, `triton`, `written-out`, `compiled`), which then must work.
        compiled: Let `torch.compile` make one program of its pass.

    Returns:
        The frozen backbone.

    Raises:
        MsekitError: Unknown name or precision, unusable checkpoint, one that needs code of its repository, or a way
            that was asked for by name and cannot be used.
    """
    try:
        settings = PassSettings(check_ways(passes), compiled, checkpointing)
    except ValueError as error:
        raise MsekitError(str(error), where="passes") from error
    device = torch.device(device) if device else default_device()
    if device.type == "cuda":
        from msekit.process import ready_for_cuda

        ready_for_cuda()
    dtype = named(dtype or default_dtype(device))
    check_kind(quantization)
    quantised = quantization_config(quantization, double_quantization, DTYPES[dtype])
    folder = checkpoint_folder(name_or_path)
    with quiet_transformers():
        model = _load_model(folder, DTYPES[dtype], device, quantised)
        tokenizer = _load_tokenizer(folder)
    check_quantised(model, quantization)
    backbone = Backbone(name_or_path, model, tokenizer, fingerprint_checkpoint(folder), settings)
    backbone.configuration = fingerprint_configuration(folder)
    if settings != PassSettings():  # what was asked for and cannot be had is refused here
        _ = backbone.passes
    return backbone


def _load_model(folder: Path, dtype: torch.dtype, device: torch.device, quantised: Any) -> Any:
    model_class, extra = architecture_of(folder)
    try:
        model, info = model_class.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=quantised,
            device_map=_placed(device, quantised),
            # on a CPU the plain products are quicker forward and backward than sdpa, whose backward is slow there; on
            # a GPU None is sdpa for an architecture that has it
            attn_implementation="eager" if device.type == "cpu" else None,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name and shapes
            **extra,
        )
    except Exception as error:  # whatever a damaged configuration or weight file makes transformers raise
        raise MsekitError(f"the checkpoint cannot be loaded: {_first_line(error)}", where=folder) from error
    wanted = {"inputs_embeds", "attention_mask", "position_ids"}
    if lacking := sorted(wanted - set(inspect.signature(model.forward).parameters)):
        raise MsekitError(
            f"{type(model).__name__} does not take {', '.join(lacking)}, which pseudo tokens and label scoring need",
            where=folder,
        )
    if "key_mapping" in extra:
        from msekit.backbones.checkpoints.text_part import of_the_text

        info["unexpected_keys"] = of_the_text(set(info.get("unexpected_keys") or ()), model)
    _refuse_other_weights(info, type(model).__name__, folder)
    if device.type == "cuda" and model.config._attn_implementation != "sdpa":
        _LOGGER.warning("%s has no fused attention: its scores are written out, layer by layer", type(model).__name__)
    return model if _placed(device, quantised) else model.to(device)


def _refuse_other_weights(info: Mapping[str, Any], loaded_as: str, folder: Path) -> None:
    """Refuse a checkpoint whose weights are not those of the class that it is loaded as.

    Args:
        info: What transformers says of the loading.
        loaded_as: Name of the class.
        folder: The checkpoint.

    Raises:
        MsekitError: They are not, with the first that is not.
    """
    said = {
        "missing_keys": f"lacks {{}} of the weights of {loaded_as}",
        "unexpected_keys": f"holds {{}} weights that {loaded_as} has no place for",
        "mismatched_keys": "holds {} weights of another shape than its config.json says",
        "error_msgs": "holds {} weights that cannot be read",
    }
    stated = stated_class(read_config(folder), loaded_as)
    other = stated != loaded_as and not stated.endswith(WRITERS)
    for kind, what in said.items():
        if not (names := info.get(kind)):
            continue
        first = sorted(name[0] if isinstance(name, tuple) else str(name) for name in names)[0]
        counted = f"{what.format(len(names))}, the first {first}"
        if kind == "missing_keys" and other:
            counted = f"is a {stated}, which is no causal LM: it {counted}"
        fix = ONE_THAT_WRITES if other else "Fetch the checkpoint again."
        raise MsekitError(f"the checkpoint {counted}", where=folder, fix=fix)


def _refuse_encoder(kind: str, raw: Mapping[str, Any], folder: Path) -> None:
    """Refuse a model that reads in both directions, which transformers would load as a causal LM without a word.

    Raises:
        MsekitError: It is one.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not raw.get("is_decoder"):
        raise MsekitError(
            f"{stated_class(raw, kind)} is no causal LM: {kind} reads a text in both directions and does not write",
            where=folder,
            fix=ONE_THAT_WRITES,
        )


def _placed(device: torch.device, quantised: Any) -> dict[str, torch.device | int] | None:
    """Where a model is loaded to at once; None for main memory, or in shards.

    A quantised model cannot be moved, and another one would take its size in main memory on the way to a GPU. A GPU is
    told by its number: accelerate refuses one without beside several processes.
    """
    if is_deepspeed_zero3_enabled():
        return None
    if device.type == "cuda":
        return {"": torch.cuda.current_device() if device.index is None else device.index}
    return {"": device} if quantised else None


def architecture_of(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The class that loads a checkpoint, and what it must be given besides the folder.

    Raises:
        MsekitError: A damaged or incomplete checkpoint, or one that only its own code could load.
    """
    import transformers

    from msekit.backbones.checkpoints.kinds import refuse_quantised
    from msekit.backbones.checkpoints.text_part import NAMES, text_part

    raw = read_config(folder)
    refuse_quantised(raw, folder)
    if published := format_of(raw):
        return published.model_class, {"config": published.checked_config(folder, raw)}
    kind = str(raw.get("model_type"))  # a damaged one may be a list or a mapping
    if kind not in transformers.CONFIG_MAPPING:
        own_code = " and only its own code could load it, which msekit never runs" if "auto_map" in raw else ""
        raise MsekitError(
            f"transformers {transformers.__version__} does not know the checkpoint's model type '{kind:.60}'{own_code}",
            where=folder,
            fix="Use a conversion of it to an architecture that transformers has.",
        )
    _refuse_encoder(kind, raw, folder)
    shapes = tensor_shapes(folder).values()  # a truncated file is noticed at its header
    if (part := text_part(folder, raw)) is not None:
        return part[0], {"config": part[1], "key_mapping": NAMES}
    refuse_absurd_sizes(raw, shapes, folder)
    return transformers.AutoModelForCausalLM, {}


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    from msekit.backbones.checkpoints.tokenizer_growth import refuse_growth

    try:
        if published := format_of(read_config(folder)):
            return published.tokenizer(folder)
        refuse_growth(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except MsekitError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exception
        if not _holds_a_tokenizer(folder):
            raise MsekitError(
                "the checkpoint has no tokenizer (tokenizer.json, tokenizer.model, vocab.json, …)",
                where=folder,
                fix="Put the files of its tokenizer beside the weights.",
            ) from error
        raise MsekitError(f"the tokenizer cannot be loaded: {_first_line(error)}", where=folder) from error


def _holds_a_tokenizer(folder: Path) -> bool:
    """Whether a file beside the weights may hold a tokenizer's words, by its name."""
    names = (path.name for path in folder.iterdir() if path.name != "tokenizer_config.json")
    return any(word in name for name in names for word in ("token", "vocab", "spiece", "sentencepiece"))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

"""A folder's files → the adapter that they speak of, and the plug-in on a backbone. Nothing in them is executed."""

from __future__ import annotations

from pathlib import Path

import torch

from msekit.adapters.interface import Adapter
from msekit.adapters.weights import check_adapter
from msekit.backbones.backbone import Backbone
from msekit.errors import MsekitError
from msekit.inference.plugin import PlugIn
from msekit.model.make_adapter import make_adapter
from msekit.runs.description import Description, read_description
from msekit.runs.files import ADAPTER
from msekit.runs.tensors import read_tensors


def usable_adapter(folder: Path, description: Description) -> Adapter:
    """An adapter to predict with.

    Raises:
        MsekitError: As `restored_adapter`; or an ablation that reads no sample.
    """
    if description.adapter.ablate in ("no-text", "no-audio-vision"):
        raise MsekitError(
            f"an adapter trained with --ablate {description.adapter.ablate} is an experiment, not one to use",
            where=folder,
            fix="`msekit evaluate` tests it.",
        )
    return restored_adapter(folder, description)


def restored_adapter(folder: Path, description: Description) -> Adapter:
    """The adapter that a description speaks of, with the folder's tensors.

    Raises:
        MsekitError: Tensors whose names or shapes do not fit the description, or that are not finite.
    """
    path, widths = folder / ADAPTER, description.widths
    tensors, _ = read_tensors(path)
    learned = description.on_missing == "learned"
    try:
        with torch.device("meta"):  # sizes that a file merely states take no memory
            adapter = make_adapter(
                description.adapter,
                description.text_dim,
                widths["audio"],
                widths["vision"],
                answers=description.dataset,
                learned_absent=learned,
            )
    except (RuntimeError, ValueError, OverflowError, TypeError) as error:
        raise MsekitError(f"the plug-in's sizes cannot be: {error}", where=folder) from error
    check_adapter(adapter, tensors, path)
    if bad := [name for name, tensor in sorted(tensors.items()) if not tensor.isfinite().all()]:
        raise MsekitError(f"{bad[0]} holds values that are not finite", where=path)
    adapter = adapter.to_empty(device="cpu").float()
    adapter.load_state_dict(tensors)
    return adapter


def read_plug_in(folder: Path, backbone: Backbone, force: bool = False) -> PlugIn:
    """Put a folder's plug-in on a backbone that is loaded already. Nothing in the folder is executed.

    Args:
        folder: Holds `adapter.json` and `adapter.safetensors`.
        backbone: The LLM.
        force: Accept a backbone whose fingerprint differs from the one trained on.

    Raises:
        MsekitError: Damaged files, tensors that do not fit, another backbone.
    """
    description = read_description(folder)
    same = description.backbone.fingerprint == backbone.fingerprint
    if not same and not force:
        raise MsekitError(
            f"the plug-in was trained on other weights than these of '{backbone.name}': '{description.backbone.name}', "
            f"fingerprint {description.backbone.fingerprint[:12]}…, not {backbone.fingerprint[:12]}…",
            where=folder,
            fix="Load that backbone; force=True (--force) uses this one all the same.",
        )
    if description.text_dim != backbone.text_dim:
        raise MsekitError(
            f"the plug-in is for embeddings of width {description.text_dim}, '{backbone.name}' has {backbone.text_dim}",
            where=folder,
        )
    trained, here = description.backbone.quantization, quantization_of(backbone)
    notices: tuple[str, ...] = ()
    if not same:
        notices += ("the backbone's weights are not those that the plug-in was trained on",)
    if (otherwise := description.backbone.read_otherwise(backbone.configuration)) is not None:
        notices += (otherwise,)
    if trained != here:
        notices += (f"trained with quantization {trained}, used with {here}: scores differ a little",)
    trained_in, held_in = description.backbone.dtype, str(backbone.model.dtype).removeprefix("torch.")
    if trained_in not in (None, held_in):
        notices += (f"trained in {trained_in}, used in {held_in}: scores differ a little",)
    return PlugIn(description, usable_adapter(folder, description), backbone, notices)


def quantization_of(backbone: Backbone) -> str:
    """`none`, `int8` or `nf4`: how a loaded backbone is held."""
    settings = getattr(backbone.model.config, "quantization_config", None)
    if settings is None:
        return "none"
    return "int8" if settings.load_in_8bit else "nf4"

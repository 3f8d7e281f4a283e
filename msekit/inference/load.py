"""`load_run`: a run's folder, an exported folder or a hub repository → a PlugIn. Loading executes nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from msekit.backbones.backbone import Backbone
from msekit.backbones.holding import held_today
from msekit.backbones.load import load_backbone
from msekit.backbones.precision import default_device, dtype_here
from msekit.errors import MsekitError
from msekit.inference.plugin import PlugIn
from msekit.inference.restore import read_plug_in
from msekit.runs.description import read_description
from msekit.runs.folder import fetch_run


def load_run(
    run: str | Path,
    backbone: Backbone | str | None = None,
    *,
    quantization: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: torch.device | str | None = None,
    passes: str | tuple[str, ...] = "auto",
    revision: str | None = None,
    force: bool = False,
) -> PlugIn:
    """Load a plug-in and its backbone.

    Args:
        run: A run's folder (or one that holds a single run), an exported folder, or a hub repository `user/name`.
        backbone: A loaded backbone or what `load_backbone` takes; None for the one the run was trained on, by name.
        quantization: `none`, `int8` or `nf4`; None for what the run was trained with.
        dtype: `fp32`, `bf16` or `fp16`, or torch's type; None for what the run was trained with.
        device: Where to compute; None for a GPU if there is one.
        passes: Shorter ways that the backbone's pass may take, as `load_backbone` has them.
        revision: Of the hub repository.
        force: Accept a backbone whose fingerprint differs from the one trained on.

    Returns:
        The plug-in, ready to predict.

    Raises:
        MsekitError: No run there, damaged files, or another backbone than the one trained on.
    """
    folder = fetch_run(run, revision)
    trained = read_description(folder).backbone
    if isinstance(backbone, Backbone):
        return read_plug_in(folder, backbone, force)
    place = torch.device(device or default_device())
    quantization = quantization or held_today(trained.quantization)
    try:
        dtype = dtype or dtype_here(trained.dtype, place)
        loaded = load_backbone(backbone or trained.name, quantization, dtype, place, passes=passes)
    except MsekitError as error:
        if backbone is not None:
            raise
        raise MsekitError(
            f"the run's backbone cannot be loaded: {error}", where=folder, fix="Name it by backbone= (--backbone)."
        ) from error
    return read_plug_in(folder, loaded, force)

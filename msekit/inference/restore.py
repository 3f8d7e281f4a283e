"""A folder's tensors → the adapter that its description speaks of. Nothing in the folder is executed."""

from __future__ import annotations

from pathlib import Path

import torch

from msekit.adapters.interface import Adapter
from msekit.adapters.weights import check_adapter
from msekit.errors import MsekitError
from msekit.model.make_adapter import make_adapter
from msekit.runs.description import Description
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

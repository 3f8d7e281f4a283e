"""Adapter tensors from a file, checked against the module that takes them, name by name and shape by shape."""

from __future__ import annotations

from torch import Tensor, nn

from msekit.errors import MsekitError

OTHERWISE = "Another msekit made it, which builds this adapter otherwise, or a file beside it was changed: train again."


def check_adapter(adapter: nn.Module, tensors: dict[str, Tensor], where: object) -> None:
    """Compare tensors with what an adapter needs; names and shapes must match exactly.

    Raises:
        MsekitError: The first name or shape that does not match.
    """
    own = adapter.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            side = "lacks" if name not in tensors else "has an unknown"
            raise MsekitError(f"the adapter file {side} {name}", where=where, fix=OTHERWISE)
        if own[name].shape != tensors[name].shape:
            raise MsekitError(
                f"{name} is {tuple(tensors[name].shape)} in the adapter file but {tuple(own[name].shape)} is needed",
                where=where,
                fix=OTHERWISE,
            )
        if own[name].is_floating_point() != tensors[name].is_floating_point():
            raise MsekitError(
                f"{name} is of {tensors[name].dtype} in the adapter file, not {own[name].dtype}",
                where=where,
                fix=OTHERWISE,
            )


def load_adapter(adapter: nn.Module, tensors: dict[str, Tensor], where: object) -> None:
    """Put tensors into an adapter.

    Raises:
        MsekitError: The first name or shape that does not match.
    """
    check_adapter(adapter, tensors, where)
    adapter.load_state_dict(tensors)

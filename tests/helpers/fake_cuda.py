"""A GPU that is not there: tensors without numbers that say they lie on one, and who waits for it is noted.

torch's fake tensors know shape, type and device. So whatever mixes devices fails on them as on a GPU, and a copy or a
read that a program would wait for is seen. What needs a driver cannot run: autograd, and cuDNN's LSTM, for
which a product of the same shapes stands in. Brackets, `x[...]`, `~x`, `item`, `contiguous` and `copy_`
ask a build for CPUs for a driver too; here they are the operators that they stand for.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from msekit.backbones.backbone import Backbone
from msekit.data.batches.batch import Batch

GPU = torch.device("cuda:0")
_MODE = FakeTensorMode(allow_non_fake_inputs=True)
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "_unique2")
"""Operators that return to the program what the device has computed, and so wait for it."""


class Waits(TorchDispatchMode):
    """Notes every read and every copy between devices that a program waits for, with the line that asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.operators[name] += 1
        if name in READS and _on_gpu(args[0]):
            self.found.append(f"{name} at {_line()}")
            return _some(name, args[0])
        if name == "_to_copy":
            self._copied(args[0], kwargs.get("device"), kwargs.get("non_blocking", False))
        if name == "copy_":
            self._copied(args[1], args[0].device, kwargs.get("non_blocking", len(args) > 2 and args[2]))
        return func(*args, **kwargs)

    def _copied(self, source: Tensor, device: Any, non_blocking: bool) -> None:
        target = source.device if device is None else torch.device(device)
        if source.device.type == "cpu" and not getattr(source, "is_pinned_here", False):
            non_blocking = False  # what the driver cannot read by itself is copied while the program waits
        if {source.device.type, target.type} == {"cpu", "cuda"} and not non_blocking:
            self.found.append(f"copy {source.device.type} -> {target.type} {tuple(source.shape)} at {_line()}")


def _on_gpu(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def _some(name: str, asked: Tensor) -> Any:
    """An answer where there are no numbers."""
    if name in ("_local_scalar_dense", "equal"):
        return {torch.bool: True, torch.int64: 1}.get(asked.dtype, 1.0)
    return asked.new_empty(0, dtype=torch.long)


def _line() -> str:
    """The innermost lines of ours and of transformers."""
    ours = [frame for frame in traceback.extract_stack() if "/msekit/" in frame.filename]
    theirs = [frame for frame in traceback.extract_stack() if "/transformers/" in frame.filename]
    return " < ".join(f"{f.filename.split('/')[-1]}:{f.lineno} {f.line}" for f in (ours[-1:] + theirs[-1:]))


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, tensors that are made have no numbers, and may lie on a GPU that is not there."""

    def lstm(self: nn.LSTM, frames: Tensor, states: Any = None) -> tuple[Tensor, Any]:
        for parameter in self.parameters():
            assert (parameter.device, parameter.dtype) == (frames.device, frames.dtype)
        out = nn.functional.linear(frames, self.weight_ih_l0[: self.hidden_size])
        return out, (out[:, -1], out[:, -1])

    with monkeypatch.context() as patch, torch.no_grad(), _MODE:
        patch.setattr(nn.LSTM, "forward", lstm)
        patch.setattr(Tensor, "pin_memory", _pinned)
        patch.setattr(Tensor, "contiguous", lambda self: torch.ops.aten.contiguous.default(self))
        patch.setattr(Tensor, "copy_", lambda self, *args, **how: torch.ops.aten.copy_.default(self, *args, **how))
        patch.setattr(Tensor, "__invert__", lambda self: torch.bitwise_not(self))
        for name, kind in (("item", None), ("__float__", float), ("__int__", int), ("__bool__", bool)):
            patch.setattr(Tensor, name, partialmethod(_read, kind, getattr(Tensor, name)))
        patch.setattr(Tensor, "__getitem__", partialmethod(_taken, Tensor.__getitem__))
        patch.setattr(Tensor, "__setitem__", partialmethod(_put, Tensor.__setitem__))
        yield


def _pinned(self: Tensor, *_: Any) -> Tensor:
    """A copy in memory that a GPU reads by itself."""
    copy = torch.empty_like(self)
    copy.is_pinned_here = True  # type: ignore[attr-defined]
    return copy


def _read(self: Tensor, kind: type | None, plainly: Any) -> Any:
    """`float(self)` and the like."""
    if not _on_gpu(self):
        return plainly(self)
    value = torch.ops.aten._local_scalar_dense.default(self)
    return value if kind is None else kind(value)


def _taken(self: Tensor, plainly: Any, places: Any) -> Tensor:
    """`self[places]`."""
    if not _on_gpu(self):
        return plainly(self, places)
    view, tensors = _view(self, places)
    return torch.ops.aten.index.Tensor(view, tensors) if any(each is not None for each in tensors) else view


def _put(self: Tensor, plainly: Any, places: Any, value: Any) -> None:
    """`self[places] = value`."""
    if not _on_gpu(self):
        return plainly(self, places, value)
    view, tensors = _view(self, places)
    assert all(each is None for each in tensors), "nothing of ours writes so"
    return torch.ops.aten.copy_.default(view, value) if isinstance(value, Tensor) else view.fill_(value)


def _view(whole: Tensor, places: Any) -> tuple[Tensor, list[Tensor | None]]:
    """What whole numbers, slices, None and ... choose, and the tensors that choose further, by dimension."""
    places = list(places) if isinstance(places, tuple) else [places]
    if (dots := next((n for n, place in enumerate(places) if place is Ellipsis), None)) is not None:
        free = whole.ndim - sum(place is not None for place in places) + 1
        places[dots : dots + 1] = [slice(None)] * free
    view, tensors = whole, []
    for place in places:
        if place is None:
            view = view.unsqueeze(len(tensors))
        elif isinstance(place, int):
            view = view.select(len(tensors), place)
            continue
        elif isinstance(place, slice):
            view = torch.ops.aten.slice.Tensor(view, len(tensors), place.start, place.stop, place.step or 1)
        tensors.append(place if isinstance(place, Tensor) else None)
    return view, tensors


def put_there(module: nn.Module) -> nn.Module:
    """A module with parameters and buffers of the same shapes on the GPU that is not there."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                there = torch.empty(parameter.shape, dtype=parameter.dtype, device=GPU)
                part._parameters[name] = nn.Parameter(there, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU)
        for name, value in vars(part).items():  # what transformers keeps beside its buffers
            if isinstance(value, Tensor):
                setattr(part, name, torch.empty(value.shape, dtype=value.dtype, device=GPU))
    return module


def backbone_there(backbone: Backbone) -> Backbone:
    """An LLM there, whose ways through it were decided here."""
    _ = backbone.passes
    put_there(backbone.model)
    backbone.device, backbone.on_gpu = GPU, True
    backbone._constants.clear()
    backbone._prefixes.clear()
    return backbone


def batch_here(batch: Batch) -> Batch:
    """A batch without numbers in main memory."""
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{k: torch.empty(v.shape, dtype=v.dtype) for k, v in tensors.items() if v is not None})

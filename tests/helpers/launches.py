"""What a GPU would launch, counted on a CPU: operators that compute; views launch nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

FREE = {"as_strided", "detach", "alias", "is_same_size", "sym_size", "sym_stride", "sym_numel", "is_pinned"}
"""Beside what torch itself marks as views."""
EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_", "lift_fresh"}
NOTED = {"_record_function_enter_new", "_record_function_exit"}
"""For a profiler."""


class Launches(TorchDispatchMode):
    """Counts operators that a GPU launches something for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not (func.is_view or name in FREE | EMPTY | NOTED or name.endswith("_view")):
            self.names[name] += 1
        return func(*args, **(kwargs or {}))

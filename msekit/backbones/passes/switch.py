"""Another forward for modules of a frozen LLM, behind a switch: the one place where a `forward` is overwritten.

Who is put over a module last is asked first. `choose.py` does the putting, from the inside to the outside: leaner
parts, then the last layer's parts, then layers that are recomputed, then layers that are written out. A module whose
switches are all off computes what its class writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@dataclass(eq=False)
class Switch:
    """Whether the forwards that were put behind it are used."""

    on: bool = False

    def put_over(self, module: nn.Module, make: Callable[[Forward], Forward]) -> None:
        """Put a forward over a module's.

        Args:
            module: From now on computes what was made where the switch is on, and what it computed so far where not.
            make: Makes the new forward from the one so far.
        """
        inner: Forward = module.forward
        module.forward = partial(_either, self, inner, make(inner))


def _either(switch: Switch, inner: Forward, other: Forward, *args: Any, **kwargs: Any) -> Any:
    return (other if switch.on else inner)(*args, **kwargs)

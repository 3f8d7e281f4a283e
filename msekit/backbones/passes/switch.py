"""Another forward for modules of a frozen LLM, behind a switch: the one place where a `forward` is overwritten.

Who is put over a module last is asked first; `choose.py` does the putting, in its order. A module whose switches are
all off computes what its class writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

Forward = Callable[..., Any]
Over = tuple[nn.Module, Callable[[Forward], Forward]]
"""A module, and what makes another forward for it from the one that it has."""


@dataclass(eq=False)
class Switch:
    """Whether the forwards that were put behind it are used."""

    on: bool = False


def put_over(forwards: Iterable[Over], on: bool = False) -> Switch:
    """Put forwards over those of their modules.

    Returns:
        The switch: the modules compute what was put over them where it is on, and what they computed before where not.
    """
    switch = Switch(on)
    for module, make in forwards:
        inner: Forward = module.forward
        module.forward = partial(_either, switch, inner, make(inner))
    return switch


def _either(switch: Switch, inner: Forward, other: Forward, *args: Any, **kwargs: Any) -> Any:
    return (other if switch.on else inner)(*args, **kwargs)

"""One process or many: the Accelerator, and gathering by sample position."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from msekit.errors import MsekitError
from msekit.training.zero import Zero

T = TypeVar("T")


def is_main_process() -> bool:
    """Whether this process speaks for the run; known before anything distributed is set up."""
    return int(os.environ.get("RANK", "0")) == 0


def accelerator_for(device: torch.device) -> Any:
    """The Accelerator of this process.

    Precision is the backbone's own dtype and the adapter's fp32, so accelerate's autocast stays off.
    """
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, if installed, warns on stdout when looked for
    os.environ.pop("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", None)  # accelerate would divide our loss by it once more
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # accelerate takes a named backend as a sign of several
    kwargs = [InitProcessGroupKwargs(backend="gloo")] if several and device.type == "cpu" else []
    # told `cpu`, accelerate would turn DeepSpeed off
    plain_cpu = device.type == "cpu" and Zero.asked_for() is None
    return Accelerator(cpu=plain_cpu, mixed_precision="no", kwargs_handlers=kwargs)


def gather_rows(accelerator: Any, rows: dict[int, Any]) -> dict[int, Any]:
    """Join every process's {position: value}; each position must come from exactly one process."""
    if accelerator.num_processes == 1:
        return rows
    from accelerate.utils import gather_object

    parts = gather_object([rows])
    joined = {position: value for part in parts for position, value in part.items()}
    assert len(joined) == sum(len(part) for part in parts), "a sample was scored twice"
    return joined


def on_main(accelerator: Any, action: Callable[[], T]) -> T:
    """Do something in the main process alone; all processes get its result, or its error."""
    if accelerator.num_processes == 1:
        return action()
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except MsekitError as error:
            outcome[1] = str(error)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise MsekitError(outcome[1])
    return outcome[0]

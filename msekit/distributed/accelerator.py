"""One process or many: the Accelerator, and gathering by sample position."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch

from msekit.distributed.processes import STOPPING
from msekit.distributed.zero import Zero
from msekit.errors import LostProcessError, MsekitError
from msekit.process import deepspeed_on_cpu, divide_losses_once, ready_for_cuda, without_compiling

T = TypeVar("T")


def accelerator_for(device: torch.device, timeout_minutes: float = 10.0) -> Any:
    """The Accelerator of this process.

    Precision is the backbone's own dtype and the adapter's fp32, so accelerate's autocast stays off.

    Args:
        device: Where the backbone will lie.
        timeout_minutes: How long processes wait for one another.
    """
    if device.type == "cpu":
        deepspeed_on_cpu()
    else:
        ready_for_cuda()
    divide_losses_once()
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # accelerate takes a named backend as a sign of several
    backend = "gloo" if device.type == "cpu" else "nccl"
    timeout = timedelta(minutes=timeout_minutes)
    # buffers are tables that every process makes alike: nothing to send at every pass; gradients are kept once
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    kwargs = [InitProcessGroupKwargs(backend=backend, timeout=timeout), ddp] if several else []
    zero = Zero.asked_for()
    if device.type == "cpu" and zero is not None:
        without_compiling()
    plain_cpu = device.type == "cpu" and zero is None  # told `cpu`, accelerate would turn DeepSpeed off
    return Accelerator(cpu=plain_cpu, mixed_precision="no", kwargs_handlers=kwargs)


def leave_group() -> None:
    """Part from the other processes and end this one, if it is one of several; where its work went well.

    gloo's threads hold Python objects, and one that lets go of them while the interpreter shuts down aborts the
    process: work that was done would end as a failure. The threads end with the last reference to their group, which
    default arguments of torch's own functions may keep, and DeepSpeed does: so the shutdown is passed over.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class StopSignals:
    """Within, what schedulers send before they take a machine away asks instead of kills."""

    received = False
    """Whether one has come."""
    failure: tuple[str, Exception] | None = None
    """What asked in a signal's place: something that watches the run, and the error it raised."""

    def __enter__(self) -> StopSignals:
        own = threading.current_thread() is threading.main_thread()  # no other may; there signals go where they went
        self._before = {number: signal.signal(number, self._note) for number in STOPPING if own}
        return self

    def ask(self, who: str, error: Exception) -> None:
        """Ask to stop, as a signal would."""
        self.received, self.failure = True, (who, error)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def naming_lost_processes(accelerator: Any, folder: Path) -> Iterator[None]:
    """Turn a broken connection or a wait in vain into a message.

    Raises:
        LostProcessError: Another process of this run is gone.
    """
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        broken = isinstance(error, torch.distributed.DistError) or any(name in first for name in ("gloo", "NCCL"))
        if accelerator.num_processes == 1 or not broken:
            raise
        raise LostProcessError(
            f"process {accelerator.process_index} lost contact with another one: {first}",
            where=folder,
            fix="Mend what broke there, then use --resume.",
        ) from error


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

"""Files of a run that hold tensors: the adapter, and the state to resume from. Never a frozen weight, never a pickle.

The state is one safetensors file, written beside and renamed, so a run killed at any moment finds the last one whole:
adapter, best adapter, AdamW's moments, the random state, and (as JSON in the header) where training stood.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from msekit.adapters.weights import load_adapter
from msekit.errors import MsekitError
from msekit.runs.files import STATE
from msekit.runs.progress import Progress
from msekit.runs.tensors import read_tensors, write_tensors
from msekit.words import reason


@dataclass(frozen=True)
class RunKey:
    """What two processes must share for one to continue the other's run."""

    written: str
    """The hash that a saved state carries."""
    accepted: frozenset[str]
    """The hashes that a state may carry: older states count the evaluation batch and the precision as set, too, and do
    not count the backbone's configuration."""


@dataclass(frozen=True)
class State:
    """What a stopped run goes on from, beside torch's random state."""

    adapter: nn.Module
    """As it stands."""
    moments: dict[str, Tensor]
    """The optimiser's state, as the engine gives it."""
    best: dict[str, Tensor]
    """The best epoch's adapter; empty before the first."""
    progress: Progress
    run_key: str
    """What must be equal for a resumed run to be the same run."""
    average: dict[str, Tensor]
    """The moving average of the adapter; empty where there is none."""
    dtype: str
    """torch's name of the precision that the backbone is held in."""


def clocks() -> np.ndarray:
    """Seconds of wall time, and of processor time over all threads."""
    return np.array([time.perf_counter(), time.process_time()])


def save_state(folder: Path, state: State) -> None:
    """Write the state to resume from into a run's folder."""
    tensors = {f"adapter.{name}": tensor for name, tensor in state.adapter.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    tensors |= {f"optim.{name}": tensor for name, tensor in state.moments.items()}
    tensors |= {f"average.{name}": tensor for name, tensor in state.average.items()}
    tensors["random.torch"] = torch.get_rng_state()
    header = {"progress": json.dumps(asdict(state.progress)), "run_key": state.run_key, "dtype": state.dtype}
    write_tensors(folder / STATE, tensors, header)


def saved_dtype(folder: Path) -> str | None:
    """The precision that a stopped run's backbone was held in, by torch's name; None without a state that says so."""
    try:
        with safe_open(folder / STATE, framework="pt") as file:
            return (file.metadata() or {}).get("dtype")
    except (SafetensorError, OSError):
        return None


def load_state(
    folder: Path, adapter: nn.Module, run_key: RunKey, average: dict[str, Tensor] | None = None
) -> tuple[Progress, dict[str, dict[str, Tensor]]]:
    """Read a saved state; the random state, the adapter and its moving average are restored in place.

    Returns:
        Where training stood, and the tensors of `adapter`, `best` (empty before the first epoch's end) and `optim`.

    Raises:
        MsekitError: No state, a damaged one, or one of a run with other settings.
    """
    path = folder / STATE
    tensors, header = read_tensors(path)
    if header.get("run_key") not in run_key.accepted:
        raise MsekitError(
            "the state was saved with other settings, data, weights or another msekit",
            where=path,
            fix="Resume as the run was started, or choose another --output.",
        )
    groups: dict[str, dict[str, Tensor]] = {"adapter": {}, "best": {}, "optim": {}, "random": {}, "average": {}}
    try:
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        load_adapter(adapter, groups["adapter"], path)
        for name, tensor in (average or {}).items():
            tensor.copy_(groups["average"][name])
        torch.set_rng_state(groups["random"]["torch"])
        return TypeAdapter(Progress).validate_json(header["progress"]), groups
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise MsekitError(
            f"the state is damaged: {reason(error)}", where=path, fix="Begin again in another folder."
        ) from error

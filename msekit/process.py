"""What msekit does to the whole process, not to an object of its own: one list, and the functions that do it.

A library changes its user's process as little as it can. The command line does more, for the process is its own.

| what | where | for whom | undone |
|---|---|---|---|
| numbers below the normal range count as zero | `flush_denormals`, before training | training | no |
| Python's, numpy's and torch's global random state | `seed_everything`, before training | training | no |
| torch's, before a baseline is made, and as its state says | `baselines/trainer.py` | `msekit baseline` | no |
| torch's, as a saved state says | `training/checkpoint.py` | `--resume` | no |
| torch's, while an adapter is made | `model/make_adapter.py` | all | yes |
| torch's, while the tiny LLM is made | `backbones/checkpoints/tiny.py` | all | yes |
| torch's, while a small random encoder is made | `testing/tiny_encoders.py` | tests | yes |
| torch's, while an LLM's small twin is made | `backbones/passes/twin.py` | all | yes |
| operators that add in any order are refused | `deterministic`, while `--deterministic` trains | training | yes |
| cuDNN's attention off, its fp32 in full | `ready_for_cuda` | all on a GPU | no |
| CUDA's allocator and cuBLAS (environment) | `settle_allocator` in `gpu.py`, before CUDA starts | all on a GPU | no |
| DeepSpeed's shared-memory operator counts as unusable | `without_compiling`, ZeRO on a CPU | training | no |
| a FutureWarning of torch that DeepSpeed causes | `quiet_deepspeed`, wherever DeepSpeed starts | training | no |
| the launcher's log and a warning of its | `quiet_launcher`, before `--launch` | the command line | no |
| `MSEKIT_LAUNCHED` set | `distributed/launch.py` | the command line | no |
| GPUs hidden; gloo's network interface | `use_cpu_alone`, `use_interface`, before `--launch` | the command line | no |
| `DS_ACCELERATOR`, where it is unset | `deepspeed_on_cpu` | training, the command line | no |
| accelerate's number of accumulation steps is unset | `divide_losses_once` | training | no |
| `TORCHINDUCTOR_CACHE_DIR`, where it is unset; msekit's log on stderr | `cli/entry.py` | the command line | no |
| `OMP_WAIT_POLICY`, where a user says nothing of it; Ctrl-C remembered | `cli/entry.py` | the command line | no |
| signals ask to stop, kill not | `distributed/accelerator.py`, `experiments/sweep.py` | training, sweeps | yes |
| the `transformers` logger at ERROR, no bars | `backbones/checkpoints/quiet.py` | whoever loads a backbone | yes |
| limits of `torch._dynamo` | `backbones/passes/compiled.py` | `model.compile` | yes |
| two warnings of bitsandbytes; `sys.modules["kernels"]` | `backbones/quantise.py` | 8 and 4 bit | the latter |
| file descriptor 2; a warning, the log of mediapipe | `media/face_engines.py` | reading faces in clips | the former |
| a warning of matplotlib | `reports/figures.py` | HTML reports | yes |
"""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from msekit.errors import MsekitError
from msekit.gpu import settle_allocator


def flush_denormals() -> None:
    """Let a CPU take numbers below the normal range for zero.

    Gradients through hundreds of LSTM steps underflow, and CPUs are slow at such numbers.
    """
    torch.set_flush_denormal(True)


def seed_everything(seed: int) -> None:
    """Seed the global random states, from which no code of msekit draws once an adapter is made."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def ready_for_cuda() -> None:
    """Set what any computation of ours on a GPU needs; called again it changes nothing.

    cuDNN's attention, which torch 2.11 takes first on an H100, has NaN gradients under masks (pytorch#196678) and plans
    every new shape for a second. Its LSTMs and convolutions would by default round fp32 operands to 10 bits of
    mantissa; an adapter is fp32, and so small that this costs nothing.
    """
    settle_allocator()
    torch.backends.cuda.enable_cudnn_sdp(False)
    if hasattr(torch.backends.cudnn, "rnn"):
        for layers in ("rnn", "conv"):
            getattr(torch.backends.cudnn, layers).fp32_precision = "ieee"
    else:  # torch before 2.9
        torch.backends.cudnn.allow_tf32 = False


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within, only operators that compute the same again, if that is wanted; it asks nothing of a CPU.

    Raises:
        MsekitError: There is none of a kind that is needed.
    """
    if not wanted:
        yield
        return
    settings: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # nothing of ours reads what it did not write
    try:
        yield
    except RuntimeError as error:
        said = str(error).partition(",")[0]
        if "does not have a deterministic implementation" not in said:
            raise
        raise MsekitError(
            f"--deterministic: {said}", fix="Leave --deterministic out, or use another adapter."
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled


def without_compiling() -> None:
    """Keep DeepSpeed on a CPU from compiling an all-reduce through shared memory, which training never calls.

    It takes a C++ compiler and a minute, and a run killed meanwhile leaves a lock on which later ones wait for ever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # no public way


def quiet_deepspeed() -> None:
    """Silence what DeepSpeed says about torch's names for its own calls; a user can do nothing about it."""
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)


def quiet_launcher() -> None:
    """Silence torch's account of processes that fail and accelerate's of a port: one line of ours says what failed."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="Port `")


def use_cpu_alone() -> None:
    """Hide every GPU from this process and those that it starts."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    deepspeed_on_cpu()


def deepspeed_on_cpu() -> None:
    """Tell DeepSpeed its accelerator where nobody has: it warns, on stdout too, that it finds no other."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def use_interface(name: str) -> None:
    """Let gloo connect machines through a network interface, unless the user chose one."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def divide_losses_once() -> None:
    """Unset accelerate's number of accumulation steps, by which it would divide our loss once more."""
    os.environ.pop("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", None)

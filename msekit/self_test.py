"""What each of `doctor`'s two processes runs: add up the numbers of both, and check the sum. Started by torchrun."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import torch
from torch import distributed


def main() -> None:
    """Exchange one number over the backend that the first argument names."""
    backend = sys.argv[1]
    distributed.init_process_group(backend, timeout=timedelta(seconds=30))
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else torch.device("cpu")
    number = torch.tensor(float(distributed.get_rank() + 1), device=device)
    distributed.all_reduce(number)
    distributed.destroy_process_group()
    if number.item() != 3:
        raise RuntimeError(f"Error: 1 + 2 gave {number.item()}")


if __name__ == "__main__":
    main()

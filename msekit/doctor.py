"""What this machine has for training: devices, drivers, communication, versions, a compiler, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from msekit.backbones.precision import has_bf16_unit
from msekit.distributed.launch import obstacle_to
from msekit.distributed.processes import LAUNCHED
from msekit.paths import cache_root, shipped
from msekit.reporter import Reporter

PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "bitsandbytes", "datasets", "tokenizers", "numpy")
SELF_TEST_S = 60


def examine(self_test: bool) -> dict[str, Any]:
    """Look at everything.

    Args:
        self_test: Also start two processes that exchange numbers.

    Returns:
        A JSON-ready mapping: `machine`, `gpus`, `cuda`, `communication`, `compiler`, `versions`, `passes`, `launch`
        (configuration → why it cannot run here, or None), `self_test`.
    """
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return {
        "machine": machine(),
        "gpus": [gpu(number) for number in range(torch.cuda.device_count())],
        "cuda": {"driver": driver(), "toolkit_of_torch": torch.version.cuda},
        "communication": communication(),
        "compiler": compiler,
        "versions": {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES},
        "passes": passes(),
        "launch": {file.stem: obstacle_to(file) for file in sorted(shipped("launch").glob("*.yaml"))},
        "self_test": two_processes() if self_test else None,
    }


def passes() -> dict[str, Any]:
    """The shorter ways that a small LLM's pass takes here, as `tiny-llama`'s does, and why not the others."""
    from msekit.backbones.load import load_backbone  # which takes seconds

    chosen = load_backbone("tiny-llama").passes
    return {"used": list(chosen.uses), "refused": chosen.refused}


def machine() -> dict[str, Any]:
    """Processor, memory and room for the cache."""
    import psutil

    cache = next(path for path in (cache_root(), *cache_root().parents) if path.exists())
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "bf16": has_bf16_unit(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "memory_available_gb": round(psutil.virtual_memory().available / 2**30, 1),
        "cache": str(cache_root()),
        "cache_free_gb": round(shutil.disk_usage(cache).free / 2**30, 1),
    }


def gpu(number: int) -> dict[str, Any]:
    """One GPU."""
    properties = torch.cuda.get_device_properties(number)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "bf16": properties.major >= 8,
    }


def driver() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None


def communication() -> dict[str, Any]:
    """What processes can talk through."""
    from torch import distributed

    nccl = ".".join(map(str, torch.cuda.nccl.version())) if distributed.is_nccl_available() else None
    return {"gloo": distributed.is_gloo_available(), "nccl": nccl}


def installed(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def two_processes() -> dict[str, Any]:
    """Start two processes as `train --launch cpu2` (or, with two GPUs, ddp) does; each must get the other's number."""
    here = Path(__file__).parent
    backend = "nccl" if torch.cuda.device_count() >= 2 else "gloo"
    environment = {key: value for key, value in os.environ.items() if key != LAUNCHED}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command += ["--log_dir", folder, str(here / "self_test.py"), backend]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=SELF_TEST_S, env=environment
            )
            passed, said = done.returncode == 0, done.stderr
        except subprocess.TimeoutExpired:
            passed, said = False, f"no answer within {SELF_TEST_S} s"
    problem = None if passed else next((line for line in reversed(said.splitlines()) if "Error" in line), said[-300:])
    return {"backend": backend, "passed": passed, "seconds": round(time.monotonic() - started, 1), "problem": problem}


def show(found: dict[str, Any], reporter: Reporter) -> None:
    """Print what was found as tables."""
    overview = Table("", "", title="this machine", show_header=False)
    for key, value in found["machine"].items():
        value = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
        overview.add_row(key.replace("_", " ").replace(" gb", ", GB"), escape(str(value)))
    for number, one in enumerate(found["gpus"]):
        bf16 = "bf16" if one["bf16"] else "no bf16"
        overview.add_row(f"GPU {number}", f"{one['name']}, {one['memory_gb']} GB, {one['capability']}, {bf16}")
    if not found["gpus"]:
        overview.add_row("GPU", "none: training runs on the CPU")
    overview.add_row("NVIDIA driver", found["cuda"]["driver"] or "none")
    overview.add_row("CUDA of torch", found["cuda"]["toolkit_of_torch"] or "none (a CPU build)")
    overview.add_row("gloo", "yes" if found["communication"]["gloo"] else "no")
    overview.add_row("NCCL", found["communication"]["nccl"] or "no")
    overview.add_row("C++ compiler", found["compiler"] or "none; only model.compile wants one")
    overview.add_row("ways through a small LLM", ", ".join(found["passes"]["used"]) or "none")
    for way, reason in found["passes"]["refused"].items():
        overview.add_row(f"not {way}", escape(reason))
    for package, number in found["versions"].items():
        overview.add_row(package, number or "not installed")
    reporter.console.print(overview)
    launches = Table("launch configuration", "runs here", title="train --launch NAME")
    for name, obstacle in found["launch"].items():
        launches.add_row(name, escape(obstacle) if obstacle else "yes")
    reporter.console.print(launches)
    test = found["self_test"]
    if test is not None:
        outcome = "passed" if test["passed"] else f"FAILED: {test['problem']}"
        reporter.note(f"two processes over {test['backend']}: {outcome} ({test['seconds']} s)")

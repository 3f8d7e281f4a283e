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

from msekit.backbones.precision import has_bf16_unit
from msekit.distributed.launch import obstacle_to
from msekit.distributed.processes import LAUNCHED
from msekit.gpu import card
from msekit.paths import cache_root, shipped
from msekit.reporter import Reporter, table_of

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
    properties, here = torch.cuda.get_device_properties(number), card(number)
    return {
        "name": here.name,
        "memory_gb": round(here.memory_bytes / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "bf16": here.bf16,
        "dtype": here.default_dtype,
    }


def driver() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
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


def show(findings: dict[str, Any], reporter: Reporter) -> None:
    """Show what `examine` saw as tables."""
    facts: list[tuple[str, str]] = []
    for key, value in findings["machine"].items():
        words = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        facts.append((key.replace("_", " ").replace(" gb", ", GB"), words))
    for number, gpu in enumerate(findings["gpus"]):
        bf16 = "bf16" if gpu["bf16"] else f"no bf16: LLMs are held in {gpu['dtype']}"
        facts.append((f"GPU {number}", f"{gpu['name']}, {gpu['memory_gb']} GB, {gpu['capability']}, {bf16}"))
    if not findings["gpus"]:
        facts.append(("GPU", "none: training runs on the CPU"))
    facts += [
        ("NVIDIA driver", findings["cuda"]["driver"] or "none"),
        ("CUDA of torch", findings["cuda"]["toolkit_of_torch"] or "none (a CPU build)"),
        ("gloo", "yes" if findings["communication"]["gloo"] else "no"),
        ("NCCL", findings["communication"]["nccl"] or "no"),
        ("C++ compiler", findings["compiler"] or "none; only model.compile wants one"),
        ("ways through a small LLM", ", ".join(findings["passes"]["used"]) or "none"),
        *((f"not {way}", reason) for way, reason in findings["passes"]["refused"].items()),
        *((package, number or "not installed") for package, number in findings["versions"].items()),
    ]
    reporter.show(table_of(("this machine", ""), facts))
    launches = [(name, obstacle or "yes") for name, obstacle in findings["launch"].items()]
    reporter.show(table_of(("train --launch", "runs here"), launches))
    test = findings["self_test"]
    if test is not None:
        outcome = "passed" if test["passed"] else f"FAILED: {test['problem']}"
        reporter.show(f"two processes over {test['backend']}: {outcome} ({test['seconds']} s)")

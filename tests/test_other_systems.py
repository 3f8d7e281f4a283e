"""macOS and Windows: what Linux alone has is taken away, and everything imports, trains and locks on a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msekit.errors import MsekitError
from msekit.runs import lock, machine
from msekit.runs.files import LOCK
from msekit.runs.lock import held_for_training, refuse_held

TAKEN_AWAY = """
import importlib, mmap, os, pkgutil, signal, sys
# libraries look at the system themselves
import accelerate, datasets.arrow_writer, psutil, rich.live, torch.distributed.run, transformers, typer, uvicorn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
import accelerate.commands.launch, matplotlib.figure, sklearn.linear_model, scipy.optimize, scipy.stats
system = sys.argv.pop(1)
absent = {"win32": ["fcntl", "resource", "termios", "pwd", "grp", "posix"], "darwin": []}[system]
for name in absent:
    sys.modules[name] = None
if system == "win32":
    for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGKILL"):
        delattr(signal, name)
for module, name in ((os, "sched_getaffinity"), (mmap, "MADV_DONTNEED")):
    delattr(module, name)
sys.platform = system
"""
IMPORTS = """
import msekit
from msekit.doctor import machine
names = [found.name for found in pkgutil.walk_packages(msekit.__path__, "msekit.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert machine()["cores"] > 0
from pathlib import Path
from msekit.distributed.launch import Where, find_launch_file, launcher_options
handled = launcher_options(find_launch_file("cpu2"), Where(), ["train"]).signals_to_handle.split(",")
assert all(hasattr(signal, name) for name in handled) and "SIGINT" in handled, handled
print(len(names))
"""
TRAINS = """
from msekit.cli.entry import run
run()
"""


def python(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_every_module_imports_and_a_run_trains_elsewhere(system: str, tmp_path: Path):
    words = ["train", "--config", "quickstart", "--backbone", "tiny-llama", "--epochs", "1", "--limit-train", "16"]
    done = python(TAKEN_AWAY + IMPORTS + TRAINS, system, *words, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[0]) > 150
    assert (tmp_path / "run" / "seed-1111" / "report.json").is_file()
    assert not (tmp_path / "run" / "seed-1111" / LOCK).exists()


def test_without_flock_a_folder_is_held_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "fcntl", None)
    folder = tmp_path / "seed-1"
    with held_for_training(folder, resume=True):
        with pytest.raises(MsekitError, match="another process trains into this folder"):
            refuse_held(folder)
        with pytest.raises(MsekitError, match="another process trains"), held_for_training(folder, resume=True):
            pass
    refuse_held(folder)
    assert not folder.exists(), "a run that left nothing leaves no folder"


def test_without_getrusage_memory_is_still_counted(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(machine, "resource", None)
    assert 1 << 20 < machine.peak_memory(torch.device("cpu")) < 1 << 45


def test_the_signals_that_stop_a_run_are_those_of_the_system():
    from msekit.distributed.accelerator import StopSignals

    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received
    assert signal.getsignal(signal.SIGUSR1) is before

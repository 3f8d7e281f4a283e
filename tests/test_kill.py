"""Killed at a rename: whatever file was being put in its place, the run goes on from there to the same end."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from msekit.cli.main import app

pytestmark = [
    pytest.mark.slow,
    pytest.mark.multiprocess,
    pytest.mark.skipif(torch.cuda.is_available(), reason="autograd's threads do not outlive a fork"),
]
OF_THE_MOMENT = {"train_seconds", "train_cpu_seconds", "opinion_seconds", "train_samples_per_s", "peak_memory_bytes"}
OF_THE_MOMENT |= {"machine", "checksum"}
Replace = Callable[..., None]


def train(output: Path, *more: str) -> int:
    arguments = [
        "train",
        "--backbone",
        "tiny-llama",
        "--dataset",
        "synthetic-erc",
        "--limit-train",
        "32",
        "--epochs",
        "2",
    ]
    arguments += ["--seeds", "1", "--set", "evaluation.bootstrap=20", "--set", "save_minutes=60"]
    return CliRunner().invoke(app, [*arguments, "--output", str(output), *more]).exit_code


def in_child(work: Callable[[], int]) -> int:
    """What becomes of a forked process: its exit code, or minus the signal that ended it."""
    if (child := os.fork()) == 0:
        code = 99
        try:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def replacing(output: Path, at: int, how: str, names: Path | None = None) -> Replace:
    """`os.replace` that writes down what it puts in place, or kills the process at one of them."""
    real, count = os.replace, 0

    def replace(source: Any, target: Any, **options: Any) -> None:
        nonlocal count
        if str(target).startswith(str(output)):
            count += 1
            if names is not None:
                with names.open("a") as file:
                    file.write(f"{Path(target).name}\n")
            if count == at and how == "half":
                os.truncate(source, os.path.getsize(source) // 2)
            if count == at and how != "after":
                os.kill(os.getpid(), signal.SIGKILL)
        real(source, target, **options)
        if str(target).startswith(str(output)) and count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return replace


def killed(output: Path, at: int, how: str) -> int:
    def work() -> int:
        os.replace = replacing(output, at, how)
        return train(output)

    return in_child(work)


def outcome(output: Path) -> dict[str, Any]:
    seed = output / "seed-1"
    files: dict[str, Any] = {
        name: (seed / name).read_bytes() for name in ("adapter.safetensors", "adapter.json", "predictions-test.jsonl")
    }
    report = json.loads((seed / "report.json").read_text())
    lines = [json.loads(line) for line in (seed / "metrics.jsonl").read_text().splitlines()]
    files["report"] = {key: value for key, value in report.items() if key not in OF_THE_MOMENT}
    files["metrics"] = [{key: value for key, value in line.items() if key not in OF_THE_MOMENT} for line in lines]
    return files


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("kill")
    assert train(folder / "warm") == 0  # the cache is there from here on
    names = folder / "names"

    def work() -> int:
        os.replace = replacing(folder / "whole", 0, "", names)
        return train(folder / "whole")

    assert in_child(work) == 0
    return folder / "whole", names.read_text().splitlines()


def test_every_file_is_put_in_place_whole(undisturbed: tuple[Path, list[str]], tmp_path: Path) -> None:
    whole, names = undisturbed
    expected = outcome(whole)
    assert {"config.yaml", "state.safetensors", "adapter.json", "report.json", "summary.json"} <= set(names)
    ways = ("before", "half", "after")
    firsts = {names.index(name) for name in names}
    lasts = {len(names) - 1 - names[::-1].index(name) for name in names}
    for number, place in enumerate(sorted(firsts | lasts)):
        name = names[place]
        output = tmp_path / "run"
        shutil.rmtree(output, ignore_errors=True)
        how = ways[number % 3]
        assert killed(output, place + 1, how) == -signal.SIGKILL, (name, how)
        assert train(output, "--resume") == 0, (name, how)
        assert outcome(output) == expected, (name, how)
        left = [path.name for path in output.rglob("*.partial")]
        assert left == [], (name, how)

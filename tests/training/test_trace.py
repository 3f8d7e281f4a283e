"""From the command to the optimiser's step: how many files and calls of ours a reader follows."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import msekit
from msekit.cli.main import app

PACKAGE = Path(msekit.__file__).parent


def test_a_step_is_three_files_and_six_calls_from_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Counted from `train_command`, which is the command, to the call of `optimizer.step()`: both ends' own frames of
    other packages (the command line's parser before, torch's optimiser after) are not ours."""
    stacks: list[list[traceback.FrameSummary]] = []
    step = torch.optim.AdamW.step

    def noted(*arguments: object, **options: object) -> object:
        stacks.append(list(traceback.extract_stack()))
        return step(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--limit-train", "16"]
    arguments += ["--epochs", "1", "--set", "evaluation.bootstrap=0", "--set", "evaluation.integrity=false"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "run")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with_the_llm = [stack for stack in stacks if "train_opinion" not in {frame.name for frame in stack}]
    assert len(with_the_llm) == 1, "16 samples are one step"
    ours = [frame for frame in with_the_llm[0] if Path(frame.filename).is_relative_to(PACKAGE)]
    names = [frame.name for frame in ours]
    way = ours[names.index("train_command") :]
    calls = [frame.name for frame in way]
    assert calls == ["train_command", "train_all", "train", "fit", "step", "step"]
    files = [Path(frame.filename).relative_to(PACKAGE).as_posix() for frame in way]
    assert list(dict.fromkeys(files)) == ["cli/train.py", "training/loop.py", "training/engine.py"]

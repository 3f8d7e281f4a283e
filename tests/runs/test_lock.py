"""Two processes never train into one folder: the second is told who does, and a dead holder holds nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.errors import MsekitError
from msekit.runs.files import LOCK
from msekit.runs.lock import held_for_training, refuse_held
from tests.sharing.test_import_authors import authors_checkpoint

HOLDER = """
import sys
import threading
from pathlib import Path
from msekit.runs.lock import held_for_training
with held_for_training(Path(sys.argv[1]), resume=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.communicate()


def test_a_second_process_is_told_who_trains_there(tmp_path: Path):
    folder = tmp_path / "run" / "seed-1"
    with holder(folder) as process:
        for resume in (True, False):
            who = f"another process trains .*: process {process.pid} on "
            with pytest.raises(MsekitError, match=who) as refused, held_for_training(folder, resume):
                pass
            assert str(folder) in str(refused.value)
    refuse_held(folder)
    assert not folder.parent.exists(), "a run that left nothing leaves no folder"


@pytest.mark.parametrize("more", [[], ["--resume"], ["--seeds", "7,1111"], ["--parallel-seeds", "--resume"]])
def test_every_way_to_train_heeds_it(tmp_path: Path, more: list[str]):
    with held_for_training(tmp_path / "run" / "seed-1111", resume=True):
        arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", *more]
        done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "run")])
    assert isinstance(done.exception, MsekitError)
    assert f"process {os.getpid()} on " in str(done.exception)
    assert not list(tmp_path.rglob("*.json")), "nothing was begun"


def test_a_killed_holder_holds_nothing(tmp_path: Path):
    folder = tmp_path / "run" / "seed-1"
    with holder(folder) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / ".lock").is_file()
        with held_for_training(folder, resume=False):  # the holder wrote nothing: the folder counts as empty
            assert (folder / ".lock").read_text().startswith(f"process {os.getpid()} on ")
            (folder / "config.yaml").write_text("")
        (folder / ".config.yaml.1.partial").write_text("half of what a killed process wrote")
        with held_for_training(folder, resume=True):
            pass
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_a_folder_that_holds_a_run_is_refused_as_before(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(MsekitError, match="already holds an unfinished run"), held_for_training(tmp_path, False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_look_keeps_nobody_out(tmp_path: Path):
    """Another command asks whether the folder is held at the very moment, for which it holds it."""
    (tmp_path / LOCK).write_text("process 1 on another")
    look = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, (look,)).start()
    with held_for_training(tmp_path, resume=True):
        assert f"process {os.getpid()} on" in (tmp_path / LOCK).read_text()


def test_a_lock_of_another_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = os.open

    def refused(path: str | Path, *arguments: int) -> int:
        if Path(path).name == LOCK and arguments[0] & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(MsekitError, match="another user"), held_for_training(tmp_path / "run", resume=False):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_whatever_makes_a_run_heeds_it(tmp_path: Path):
    """A baseline, an average and an import write into a folder as training does."""
    runs, backbone = tmp_path / "runs", ["--backbone", "tiny-llama"]
    invoke = CliRunner().invoke
    options = ["--limit-train", "16", "--epochs", "1", "--set", "evaluation.bootstrap=0", "--seeds", "1,2"]
    done = invoke(app, ["train", *backbone, "--dataset", "synthetic-erc", *options, "--output", str(runs)])
    assert done.exit_code == 0, done.exception
    torch.save(authors_checkpoint(64, (74, 8), (35, 8), 2), tmp_path / "a.pth")
    ways = {
        "base/seed-1111": ["baseline", "text-linear", "--dataset", "synthetic-erc", "--output", str(tmp_path / "base")],
        "average": ["average", str(runs), "--output", str(tmp_path / "average")],
        "imported": [
            *("import-adapter", str(tmp_path / "a.pth"), *backbone, "--dataset", "mosei"),
            *("--output", str(tmp_path / "imported")),
        ],
    }
    for name, arguments in ways.items():
        with held_for_training(tmp_path / name, resume=True):
            refused = invoke(app, arguments)
            assert isinstance(refused.exception, MsekitError), (name, refused.output)
            assert f"process {os.getpid()} on " in str(refused.exception), name
            assert [path.name for path in (tmp_path / name).iterdir()] == [LOCK], "nothing was begun"
        done = invoke(app, arguments)
        assert done.exit_code == 0, (name, done.exception)
        assert (tmp_path / name / "adapter.json").is_file()
        assert not (tmp_path / name / LOCK).exists()

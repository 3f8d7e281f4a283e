"""`msekit doctor` tells what is here, and proves that two processes can talk."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from msekit.doctor import examine
from msekit.paths import shipped


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = examine(self_test=False)
    assert found["compiler"] is None
    assert found["launch"]["zero3"] is None
    assert found["launch"]["cpu2"] is None


@pytest.mark.slow
@pytest.mark.multiprocess
def test_it_reports_and_two_processes_talk():
    done = subprocess.run(
        [sys.executable, "-m", "msekit", "doctor", "--format", "json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["versions"]["torch"] == version("torch")
    assert found["self_test"]["passed"]
    assert set(found["launch"]) == {file.stem for file in shipped("launch").glob("*.yaml")}
    assert found["machine"]["cores"] >= 1

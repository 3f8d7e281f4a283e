"""How the program begins and ends: Ctrl-C is 130 in every phase, threads sleep while they wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from ast import literal_eval
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
from msekit.cli import entry, main
from msekit.errors import MsekitError

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(.1)

class Held:
    def __del__(self):
        interrupt()

def lost():
    Held()
    time.sleep(30)

def twice_lost():
    Held()
    Held()
    time.sleep(30)

def turned_into(error):
    try:
        interrupt()
    except KeyboardInterrupt:
        raise error from None

def handled():
    try:
        interrupt()
    except KeyboardInterrupt:
        pass

main.app = eval("lambda: " + sys.argv.pop())
entry.run()
"""


def ended(command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, command], capture_output=True, text=True, check=False, timeout=25
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("interrupt()", 130, "stopped by Ctrl-C\n"),
        ("lost()", 130, "stopped by Ctrl-C\n"),
        ("twice_lost()", 130, "stopped by Ctrl-C\n"),
        ("turned_into(RecursionError('deep'))", 130, "stopped by Ctrl-C\n"),
        ("turned_into(ImportError('half of torch'))", 130, "stopped by Ctrl-C\n"),
        ("turned_into(MsekitError('the checkpoint cannot be loaded'))", 130, "stopped by Ctrl-C\n"),
        ("turned_into(SystemExit(1))", 130, "stopped by Ctrl-C\n"),
        ("turned_into(SystemExit(130))", 130, ""),
        ("handled()", 0, ""),
        ("turned_into(SystemExit(0))", 0, ""),
        ("(_ for _ in ()).throw(MsekitError('no such file'))", 2, "error: no such file\n"),
    ],
)
def test_ctrl_c_is_130_whatever_it_was_turned_into(command: str, code: int, said: str):
    assert ended(command) == (code, said)


@pytest.mark.slow
def test_ctrl_c_while_libraries_load(tmp_path: Path):
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--output", str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "-m", "msekit", *arguments], stderr=subprocess.PIPE, text=True)
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def waits(before: dict[str, str]) -> dict[str, str]:
    """The program's environment, of what concerns waiting threads."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = f"print({{name: value for name, value in os.environ.items() if name in {names!r}}})"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, command], capture_output=True, text=True, check=True, env=environment | before
    )
    answer: dict[str, str] = literal_eval(done.stdout)
    return answer


def test_threads_sleep_while_they_wait_unless_a_user_says_how():
    assert waits({}) == {"OMP_WAIT_POLICY": "PASSIVE"}
    for own in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "300"}, {"KMP_BLOCKTIME": "5"}):
        assert waits(own) == own


def test_the_library_leaves_the_environment_alone():
    program = "import os; before = dict(os.environ); import msekit, msekit.cli.main; assert os.environ == before"
    subprocess.run([sys.executable, "-c", program], check=True)

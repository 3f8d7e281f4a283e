"""`--help` is quick and loads nothing heavy; every shipped configuration is one that a command accepts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msekit.adapters.ablations import ABLATIONS
from msekit.adapters.sizes import ADAPTERS
from msekit.backbones.holding import KINDS
from msekit.baselines.catalogue import BASELINES
from msekit.cli.main import app
from msekit.settings import choices
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.settings.recipes import RECIPES

REPOSITORY = Path(__file__).parents[2]


def test_help_answers_without_torch():
    program = "import sys; sys.argv = ['msekit', '--help']\nfrom msekit.cli.main import app\ntry: app()\n"
    program += "except SystemExit: pass\nheavy = {'torch', 'transformers', 'datasets', 'sklearn', 'numpy'}"
    program += "\nheavy |= {'pydantic', 'yaml'}"
    program += "\nassert not heavy & set(sys.modules), heavy & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "count-params" in done.stdout


def test_help_takes_less_than_a_second():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "msekit", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 1


def test_json_is_the_only_thing_on_stdout():
    done = subprocess.run(
        [sys.executable, "-m", "msekit", "count-params", "--format", "json"], capture_output=True, text=True, check=True
    )
    assert len(json.loads(done.stdout)) == 12


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("train", [*ADAPTERS, *ABLATIONS, *KINDS, *RECIPES, *choices.LAYOUTS, *choices.MISSING_POLICIES]),
        ("count-params", [*ADAPTERS, *ABLATIONS]),
        ("baseline", [*BASELINES]),
        ("evaluate", [*choices.ESTIMATES["msa"], *KINDS]),
        ("predict", [*choices.ESTIMATES["msa"], *KINDS]),
    ],
)
def test_help_names_all_that_the_tables_hold(command: str, names: list[str]):
    shown = CliRunner().invoke(app, [command, "--help"]).stdout
    unbroken = "".join(shown.split())  # a line may end within a name
    assert not [name for name in names if name not in unbroken]


def test_every_shipped_run_file_resolves():
    files = sorted(
        path for path in (REPOSITORY / "configs").rglob("*.yaml") if path.parent.name not in ("profiles", "datasets")
    )
    assert len(files) >= 2
    for file in files:
        runs, _ = plan_runs(RunRequest(run_file=str(file)))
        assert runs[0].seed == 1111
        assert file.read_text(encoding="utf-8").startswith("#"), "the header says what it is and its command"

"""What the documents print runs: every command and every piece of Python that can, on the tiny LLM, as it stands.

In a document's fenced blocks `smollm2-135m` becomes `tiny-llama`, a training gets few samples and a folder of its own,
and all runs where the example sets and finished runs of the names that the documents use lie.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from tests.test_documents import REPOSITORY

pytestmark = pytest.mark.slow
PAGES = ["README.md", *sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("docs/*.md"))]
SHORT = ["--epochs", "1", "--limit-train", "16"]
QUICK = ["--epochs", "1", "--set", "optim.opinion_samples=1"]
FEW = ["--limit-train", "96"]
FEW_EPOCHS_ALONE = "from msekit.training import opinion\nopinion.MOST = opinion.FEWEST\n"  # as tests/conftest.py has it
CANNOT = {
    r"…|owner/name|\b(RUN|FOLDER|FILE|DIR|HOST|NAME)\b|/api/": "a name to fill in",
    "llama2|qwen|chatglm|mosei|--profile": "an LLM or features to download, or another machine",
    "--launch|--slurm|sweep": "several processes; tests/distributed and tests/experiments run them",
    " serve ": "it does not end; tests/serving runs it",
    " push | fetch |user/name": "the hub; tests/sharing runs it",
    "clips|faces|--video| extract |from-mertools": "clips; tests/media runs it as it stands",
    " data list| doctor": "nothing: run by tests/cli",
    "emodb|ravdess|meld6|cherma": "data that only some have",
    "--quantization": "8 and 4 bit; tests/backbones runs it",
    "--config quickstart$": "the two commands themselves",
}
"""What a command that cannot run here has in it → why."""

ASK_A_SERVER = {"other_engines"}
"""Examples that tests/inference runs."""


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of a page's fenced blocks."""
    text = (REPOSITORY / page).read_text(encoding="utf-8").replace("smollm2-135m", "tiny-llama")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """Those of a block that can run here, in words."""
    lines = block.replace("\\\n", " ").splitlines()
    said = [re.sub(r"\s+#\s.*", "", line).strip() for line in lines if line.startswith("msekit ")]
    return [shlex.split(line)[1:] for line in said if not any(re.search(what, line) for what in CANNOT)]


def steps(page: str) -> list[str | list[str]]:
    """What a page has to run, in its order: programs and commands."""
    found: list[str | list[str]] = []
    for language, block in blocks(page):
        found += [block] if language == "python" else commands(block) if not language else []
    return found


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example sets and runs on them."""
    folder = tmp_path_factory.mktemp("documents")
    here = Path.cwd()
    os.chdir(folder)
    try:
        for name in ("moods", "opinions"):
            ran(["data", "example", name])
            train = ["train", "--backbone", "tiny-llama", "--dataset", f"{name}/{name}.yaml", *SHORT]
            ran(train)
        for number, name in enumerate(("three-seeds", "other-seeds")):
            seeds = ",".join(str(3 * number + seed) for seed in (1, 2, 3))
            train = ["train", "--backbone", "tiny-llama", "--dataset", "moods/moods.yaml", *SHORT]
            ran([*train, "--seeds", seeds, "--output", f"runs/{name}"])
    finally:
        os.chdir(here)
    return folder


def ran(words: list[str]) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, f"msekit {shlex.join(words)}: {done.exception!r}\n{done.output[-2000:]}"


@pytest.mark.parametrize("page", [page for page in PAGES if steps(page)])
def test_everything_that_can_run_does(page: str, where: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(where)
    for number, step in enumerate(steps(page)):
        if isinstance(step, list):
            ran(adapted(step, f"{Path(page).stem}-{number}"))
            continue
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", FEW_EPOCHS_ALONE + step]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr


def adapted(words: list[str], own: str) -> list[str]:
    """A command with few samples, and a folder of its own for what it writes."""
    if words[:2] == ["data", "example"]:
        return [*words, "--output", own]
    if words[0] == "export":
        return [*words[:2], own, *words[3:]]
    if words[0] == "average":
        return [*words[:2], "--output", own]
    if words[0] in ("train", "baseline") and "--dry-run" not in words:
        return [*words, *SHORT, *(["--resume"] if "--output" in words else ["--output", own])]
    return words


def test_enough_of_them_do():
    assert sum(len(steps(page)) for page in PAGES) >= 35
    assert len(steps("README.md")) >= 8


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m msekit …` as a call: what it spares is the import of torch and transformers, for every command."""

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-m", "msekit"]
        assert check
        result = CliRunner().invoke(app, command[3:])
        assert result.exit_code == 0, f"{shlex.join(command)}: {result.exception!r}\n{result.output[-2000:]}"
        sys.stdout.write(result.stdout)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "script",
    [script for script in sorted(REPOSITORY.glob("examples/*.py")) if script.stem not in ASK_A_SERVER],
    ids=lambda script: script.stem,
)
def test_the_examples_run(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    assert script.read_text(encoding="utf-8").startswith('"""')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--backbone", "tiny-llama", "--folder", "out", *QUICK, *FEW])
    runpy.run_path(str(script), run_name="__main__")
    said = {
        "a_set_from_scratch": "excited: heard",
        "does_it_listen": "all there",
        "two_plug_ins": "the LLM writes what it wrote before",
    }
    assert said[script.stem] in capsys.readouterr().out


@pytest.mark.usefixtures("in_this_process")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    cells = json.loads((REPOSITORY / "examples" / "first_plug_in.ipynb").read_text(encoding="utf-8"))["cells"]
    program = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert not any(cell.get("outputs") for cell in cells), "the notebook is kept without outputs"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKBONE", "tiny-llama")
    monkeypatch.setenv("TRAIN_OPTIONS", " ".join((*QUICK, *FEW)))
    monkeypatch.setenv("MPLBACKEND", "agg")
    exec(program, {"__name__": "__main__"})
    printed = capsys.readouterr().out
    for said in ("text alone", "without audio", "value [95 % bootstrap]"):
        assert said in printed

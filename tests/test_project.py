"""Promises about the project as a whole: short files, a wheel that works elsewhere, public names without torch."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LONGEST_FILE = 350
LONGEST_FUNCTION = 60
MOST_MODULES = 72
PACKAGES_OF_EXTRAS = ("bitsandbytes", "deepspeed", "imageio_ffmpeg", "matplotlib", "mediapipe", "opensmile", "uvicorn")


def test_files_and_functions_stay_short():
    sources = sorted((REPOSITORY / "msekit").rglob("*.py"))
    assert len(sources) > 30
    for source in sources:
        text = source.read_text(encoding="utf-8")
        assert text.count("\n") <= LONGEST_FILE, source
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, f"{source}: {node.name}"


@pytest.mark.slow
def test_the_public_names_come_lazily():
    program = "import sys, msekit; assert 'torch' not in sys.modules; msekit.load_backbone; msekit.MSEAdapter"
    program += "; assert 'torch' in sys.modules; assert 'load_backbone' in dir(msekit)"
    subprocess.run([sys.executable, "-c", program], check=True)


EFFECTS = re.compile(
    r"os\.environ\[[^]]*\] = |os\.environ\.(setdefault|pop|update)\(|sys\.modules\[[^]]*\] = "
    r"|os\.dup2\(|signal\.signal\(|\.setLevel\(|\.addFilter\(|warnings\.(filterwarnings|simplefilter)\("
    r"|(torch|np\.random|random)\.(manual_seed|seed)\(|torch\.set_\w+\("
    r"|fork_rng\(|_dynamo\.config\.(\w+ = |patch\()|__compatible_ops__"
)
"""How code changes the whole process it runs in."""


def test_what_is_done_to_the_whole_process_stands_in_one_list():
    package = REPOSITORY / "msekit"
    text = (package / "process.py").read_text(encoding="utf-8").partition('"""\n\nfrom')[0]
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert all((package / name).is_file() for name in named)
    sources = {source.relative_to(package).as_posix(): source.read_text("utf-8") for source in package.rglob("*.py")}
    assert {name for name, source in sources.items() if EFFECTS.search(source)} == named | {"process.py"}


@pytest.mark.slow
def test_using_a_plug_in_loads_little_and_nothing_of_training():
    """Files of our own behind `msekit.load_run`; a sub-package's `__init__.py` is a docstring and does not count."""
    program = "import sys, msekit; msekit.load_run; print(*("
    program += "name for name, module in sys.modules.items() if name.split('.')[0] == 'msekit' "
    program += "and not module.__file__.endswith('__init__.py')))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    names = done.stdout.splitlines()[-1].split()
    assert "msekit.inference.load" in names
    assert len(names) <= MOST_MODULES, names
    above = ("training", "studies", "reports", "settings.resolve", "data.cache", "media")
    assert not [name for name in names if name.removeprefix("msekit.").startswith(above)]


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        (r"\.forward = ", ("backbones/passes/", "backbones/cpu/")),
        (r"import bitsandbytes|from bitsandbytes", ("backbones/quantise.py",)),
        (r"import deepspeed|from deepspeed", ("distributed/", "training/engine.py", "process.py")),
        (r"trust_remote_code=True|pickle\.load", ()),
    ],
)
def test_what_has_one_place_is_nowhere_else(what: str, allowed: tuple[str, ...]):
    package = REPOSITORY / "msekit"
    sources = {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}
    assert not [
        name for name, source in sources.items() if re.search(what, source) and not name.startswith(tuple(allowed))
    ]


def test_the_names_of_a_run_s_files_stand_in_one_file():
    names = ("adapter.json", "adapter.safetensors", "config.yaml", "metrics.jsonl", "predictions-test.jsonl")
    names += (
        "report.json",
        "summary.json",
        "robustness.json",
        "calibration.json",
        "state/state.safetensors",
        "steps.jsonl",
    )
    names += ("tracking.json", "folds.json", "predictions-folds.jsonl", "study.log", "search.json")
    for source in sorted((REPOSITORY / "msekit").rglob("*.py")):
        strings = {
            node.value for node in ast.walk(ast.parse(source.read_text("utf-8"))) if isinstance(node, ast.Constant)
        }
        if source != REPOSITORY / "msekit" / "runs" / "files.py":
            assert not strings & set(names), source
        else:
            assert strings >= set(names)


@pytest.mark.slow
def test_a_wheel_works_when_installed_elsewhere(tmp_path: Path):
    """Built from the tree and installed into an empty environment, which borrows only this one's dependencies, and of
    them not those of the extras."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(REPOSITORY)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if "Could not find a version" in done.stdout + done.stderr or "ConnectionError" in done.stderr:
        pytest.skip("building in isolation needs the package index for hatchling")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "msekit/_shipped/configs/quickstart.yaml" in names
    assert "msekit/_shipped/launch/ddp.yaml" in names
    assert "msekit/serving/page.html" in names
    environment = tmp_path / "elsewhere"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    (elsewhere_site,) = environment.glob("lib/python3*/site-packages")
    hidden = f"sys.modules.update(dict.fromkeys({PACKAGES_OF_EXTRAS!r}))"
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    (elsewhere_site / "borrowed.pth").write_text(f"import site, sys; site.addsitedir({str(site)!r}); {hidden}\n")
    arguments = ["train", "--config", "quickstart", "--backbone", "tiny-llama", "--epochs", "1", "--limit-train", "16"]
    done = subprocess.run(
        [environment / "bin" / "msekit", *arguments, "--output", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=own,
    )
    assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [python, "-c", "import msekit; print(msekit.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=own,
    )
    assert str(elsewhere_site) in where.stdout

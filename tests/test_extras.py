"""The extras: each one's absence costs only its feature, and the error says what to install."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from msekit.backbones.quantise import quantization_config
from msekit.baselines import llm_linear, text_linear
from msekit.baselines.texts import TextFrom
from msekit.cli.main import app
from msekit.data import describe
from msekit.data.catalogue import DATASETS
from msekit.distributed.launch import Where, launch
from msekit.distributed.zero import Zero
from msekit.errors import MsekitError
from msekit.experiments.search import open_study
from msekit.media import segments, transcribe
from msekit.media.audio import audio_extractor
from msekit.media.decode import sound
from msekit.media.vision import vision_extractor
from msekit.reports.figures import loss_curves
from msekit.runs import look_first
from msekit.settings.choices import TRACKERS
from msekit.settings.resolve import resolve
from msekit.studies.calibrate import calibrate

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

REPOSITORY = Path(__file__).parents[1]
RUN = REPOSITORY / "tests" / "golden" / "run" / "finished" / "seed-1111"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_OF_FEATURES = {"all", "docs", "dev"}
OTHER_NAMES = {"track": "tensorboard", "asr": "speech"}
"""Of an extra, under what is looked for."""


def serve() -> None:
    done = CliRunner().invoke(app, ["serve", str(RUN)])
    assert done.exception is not None
    raise done.exception


def under_zero() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        Zero.asked_for()


def under_tensorboard() -> None:
    base = {
        "backbone": "tiny-llama",
        "dataset": "synthetic-erc",
        "output": "run",
        "tracking": {"trackers": ["tensorboard"]},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look_first, "find_spec", lambda name: None)
        look_first.refuse_absent_trackers(resolve(base, task="erc"))


@pytest.mark.parametrize(
    ("extra", "package", "feature"),
    [
        ("quant", "bitsandbytes", lambda: quantization_config("nf4", False, torch.float32)),
        ("zero", "deepspeed", lambda: launch("zero2", Where(2), ["train"])),
        ("zero", "deepspeed", under_zero),
        ("media", "opensmile", lambda: audio_extractor("egemaps")),
        ("media", "mediapipe", lambda: vision_extractor("largest")),
        ("media", "imageio_ffmpeg", lambda: sound(Path("clip.wav"))),
        ("speech", "faster_whisper", lambda: transcribe._loaded(Path("whisper"))),
        ("speech", "silero_vad", segments._vad.__wrapped__),
        ("search", "optuna", lambda: open_study(None, "wf1")),
        ("tensorboard", "tensorboard", under_tensorboard),
        ("stats", "sklearn", lambda: text_linear.fit(DATASETS["meld"], ([], None), 1.0)),  # type: ignore[arg-type]
        ("stats", "sklearn", lambda: llm_linear.fit_llm_linear(DATASETS["meld"], None, None, TextFrom(), None)),  # type: ignore[arg-type]
        ("stats", "scipy", lambda: calibrate(RUN)),
        ("plot", "matplotlib", lambda: loss_curves({})),
        ("plot", "matplotlib", lambda: describe.plot(None, Path("moods.png"))),  # type: ignore[arg-type]
        ("serve", "uvicorn", serve),
        ("serve", "starlette", serve),
    ],
)
def test_a_missing_package_costs_one_feature_and_names_its_extra(
    extra: str, package: str, feature: Callable[[], object], monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.split(".")[0] == package or name.startswith("msekit.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MsekitError, match=re.escape(f'pip install "msekit[{extra}]"')) as refused:
        feature()
    assert refused.value.exit_code == 2


def test_a_package_that_breaks_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mediapipe.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MsekitError, match=r"libGL\.so\.1.*apt-get install libgl1"):
        vision_extractor("largest")


def test_every_extra_has_an_error_that_names_it_and_is_in_all():
    named = set()
    for source in (REPOSITORY / "msekit").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "needs_extra":
                named |= {node.args[1].value} if isinstance(node.args[1], ast.Constant) else set(TRACKERS)
    extras = PROJECT["optional-dependencies"]
    assert named == set(extras) - NOT_OF_FEATURES - set(OTHER_NAMES)
    for other, name in OTHER_NAMES.items():
        assert extras[other] == [f"msekit[{name}]"]
    (everything,) = extras["all"]
    brought = {OTHER_NAMES.get(name, name) for name in re.findall(r"\w+", everything.partition("[")[2])}
    assert brought == named - (set(TRACKERS) - {"tensorboard"}), "of the trackers the one that needs no account"


def test_the_base_package_asks_for_no_package_of_an_extra():
    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requirements} - {"msekit"}

    base = names(PROJECT["dependencies"])
    assert "torch" in base
    for extra, requirements in PROJECT["optional-dependencies"].items():
        assert not base & names(requirements), extra

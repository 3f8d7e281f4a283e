"""Every adapter and ablation through the whole program: trains, tests, is evaluated again with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import audio_alone
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from msekit.adapters.ablations import ABLATIONS
from msekit.adapters.sizes import ADAPTERS, AdapterSpec
from msekit.inference.load import load_run
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.settings.resolve import resolve
from msekit.studies.evaluate import evaluate
from msekit.training.build import build
from msekit.training.dry_run import sequence_table
from msekit.training.loop import train

QUIET = Reporter(quiet=True)


def config_of(output: Path, *overrides: str, dataset: str = "synthetic-erc", **optim: float) -> RunConfig:
    given = {"backbone": "tiny-llama", "dataset": dataset, "output": output / "seed-1111", "optim": optim}
    given |= {"data": {"limit_train": 32}, "evaluation": {"bootstrap": 0}}
    return resolve(given, task="msa" if "mos" in dataset or dataset.endswith("msa") else "erc", overrides=overrides)


CASES = [*(f"adapter.ablate={name}" for name in ABLATIONS)]
CASES += [f"adapter.name={name}" for name in ("mag", "chfn", "linear", "mlp", "prompt")]


@pytest.mark.parametrize("override", CASES)
def test_trains_and_evaluates_to_the_same_numbers(tmp_path: Path, override: str):
    config = config_of(tmp_path, override, epochs=1)
    report = train(config, reporter=QUIET)
    key, value = override.split("=")
    assert report["ablate" if key.endswith("ablate") else "adapter"] == value
    tensors = load_file(config.output / "adapter.safetensors")
    assert sum(t.numel() for name, t in tensors.items() if "text_center" not in name) == report["trainable_parameters"]
    again = evaluate(config.output, reporter=QUIET)
    assert again["metrics"] == report["metrics"]
    assert json.loads((config.output / "adapter.json").read_text())["adapter"][key.split(".")[1]] == value


def test_an_adapter_may_read_less_than_the_set_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ADAPTERS, "linear", audio_alone.ENTRY)
    config = config_of(tmp_path, "adapter.name=linear", epochs=1)
    report = train(config, reporter=QUIET)
    assert report["trainable_parameters"] == audio_alone.ENTRY.count(
        AdapterSpec(64, 16, 0, 0, 0, config.adapter.pseudo_tokens)
    )
    assert evaluate(config.output, reporter=QUIET)["metrics"] == report["metrics"]
    assert load_run(config.output).predict("Well?", audio=np.ones((5, 16))).prediction


@pytest.mark.parametrize("override", ["adapter.name=mag", "adapter.name=prompt", "adapter.ablate=no-text"])
def test_the_dry_run_shows_the_sequence_as_it_is(tmp_path: Path, override: str):
    parts = build(config_of(tmp_path, override), QUIET, splits=("train",))
    table = sequence_table(parts)
    shown = list(table.columns[1].cells)
    pseudo = 0 if "mag" in override else 4
    assert shown.count("pseudo token") == pseudo
    assert ("text" in shown) == ("no-text" not in override)


def test_random_states_are_fresh_for_every_sample_and_repeatable(tmp_path: Path):
    config = config_of(tmp_path, "adapter.ablate=no-audio-vision")
    batches = [build(config, QUIET, splits=("test",)).collators["test"]([0, 1, 2]) for _ in range(2)]
    assert batches[0].audio.shape == (3, 1, 64)
    assert batches[0].vision.shape == (3, 1, 32)
    assert torch.equal(batches[0].audio, batches[1].audio)
    assert not torch.equal(batches[0].audio[0], batches[0].audio[1])
    assert float(batches[0].audio.std()) == pytest.approx(1, abs=0.2)
    alone = build(config, QUIET, splits=("test",)).collators["test"]([2])
    assert torch.equal(alone.audio[0], batches[0].audio[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "low", "high"), [("adapter.ablate=no-audio-vision", 0.15, 0.35), ("adapter.name=mag", 0.6, 1)]
)
def test_only_what_is_read_can_be_heard(tmp_path: Path, override: str, low: float, high: float):
    """Ceilings of synthetic-erc: .25 by text, .50 by one modality; a rival hears both."""
    config = config_of(tmp_path, override, "data.limit_train=480", epochs=4, lr=5e-3)
    assert low < train(config, reporter=QUIET)["metrics"]["acc"] < high


def test_a_set_without_vision_has_no_random_vision(tmp_path: Path, test_data: Path):
    path = test_data / "mosi_utt" / "mosi_utt.yaml"
    if not path.is_file():
        pytest.skip(f"no data set at {path}")
    config = config_of(tmp_path, "adapter.ablate=no-audio-vision", dataset=str(path)).model_copy()
    adapter = build(config, QUIET, splits=("valid",)).model.adapter
    assert (adapter.audio_dim, adapter.vision_dim) == (64, 0)
    assert np.isfinite([p.detach().numpy().sum() for p in adapter.parameters()]).all()

"""Runs of mse-states: the opinion alone, beside other seeds, in parts, stopped and resumed, evaluated and used."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import msekit
from msekit.adapters.sizes import WIDE
from msekit.backbones.hidden_states import read_batch
from msekit.data.readers.synthetic import synthetic_rows
from msekit.errors import MsekitError, StoppedError
from msekit.model import stored_states
from msekit.model.mse_model import edges_of
from msekit.reporter import Reporter
from msekit.runs.files import FULL
from msekit.runs.report import scalars
from msekit.settings.config import RunConfig
from msekit.settings.plan_runs import RunRequest, parse_seeds, plan_runs
from msekit.studies.evaluate import evaluate, open_run
from msekit.studies.robustness import robustness
from msekit.training.build import build
from msekit.training.loop import Run, train
from msekit.training.opinion import opinions, train_opinion
from msekit.training.parallel_seeds import train_together

QUIET = Reporter(quiet=True)


def plan(folder: Path, *overrides: str, dataset: str = "synthetic-erc", seeds: str = "1") -> list[RunConfig]:
    short = (
        "evaluation.bootstrap=0",
        "data.limit_train=96",
        "optim.epochs=2",
        "optim.opinion_samples=64",
        "adapter.depths=[0.5,1.0]",
        *overrides,
    )
    request = RunRequest(
        "tiny-llama",
        dataset,
        recipe="best",
        adapter="mse-states",
        output=folder,
        seeds=parse_seeds(seeds),
        overrides=short,
    )
    return plan_runs(request)[0]


def difference(one: Path, other: Path) -> float:
    mine, theirs = (load_file(folder / "adapter.safetensors") for folder in (one, other))
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
def test_the_opinion_alone_learns_without_the_llm(tmp_path: Path, own_cache, dataset: str, monkeypatch):
    (config,) = plan(tmp_path, "data.limit_train=320", "optim.opinion_samples=64", dataset=dataset)
    parts = build(config, QUIET)
    before = opinions(parts, "valid").loss()
    fusion = parts.model.adapter.projector.to_text_dim.weight.clone()
    monkeypatch.setattr(parts.backbone.passes, "run", None)  # a pass through the LLM would fail
    train_opinion(config, parts, QUIET, lambda: None)
    assert opinions(parts, "valid").loss() < 0.8 * before
    assert torch.equal(fusion, parts.model.adapter.projector.to_text_dim.weight)


def test_of_wide_frames_the_collator_gives_their_statistics_and_whether_there_are_any(tmp_path: Path, own_cache):
    """Nobody looks at the sequence, so a batch does not carry it."""
    width, lengths = WIDE + 1, (5, 0, 40)
    generator = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        frames = [generator.normal(size=(length, width)).astype(np.float32) for length in lengths] * 4
        rows = [
            {"features": {"text": "so", "audio": audio, "audio_len": len(audio)}, "label": label}
            for audio, label in zip(frames, ("joy", "anger") * 6, strict=True)
        ]
        (tmp_path / f"wide_{split}.pkl").write_bytes(pickle.dumps(rows))
    file = tmp_path / "wide.yaml"
    file.write_text("{name: wide, task: erc, layout: erc-pickle, labels: [joy, anger], source: .}")
    parts = build(plan(tmp_path / "run", "data.limit_train=null", dataset=str(file))[0], QUIET)
    batch = parts.collators["train"]([0, 1, 2])
    assert batch.audio.shape == (3, 1, width)
    assert batch.audio_lengths.tolist() == [1, 0, 1]
    whole = parts.cache.split("train").audio(2)
    standard = (whole - parts.cache.info.audio.mean) / parts.cache.info.audio.std
    assert np.allclose(batch.audio_summary[2, :width], standard.mean(axis=0), atol=1e-3), "over all 40 frames"


@pytest.mark.slow
def test_seeds_together_and_a_batch_in_parts_are_the_same_runs(tmp_path: Path, own_cache):
    """Dropout is a sample's own, so it does not matter what else is computed with it."""
    joined, alone = plan(tmp_path / "joined", seeds="1,2"), plan(tmp_path / "alone", seeds="1,2")
    list(train_together(joined, reporter=QUIET))
    for mine, theirs in zip(joined, alone, strict=True):
        train(theirs, reporter=QUIET)
        assert difference(mine.output, theirs.output) <= 1e-5
    (parts,) = plan(tmp_path / "parts", "optim.accumulation=3")
    train(parts, reporter=QUIET)
    assert difference(parts.output, alone[0].output) <= 1e-5
    assert difference(alone[0].output, alone[1].output) > 1e-3


@pytest.mark.slow
def test_stopped_and_resumed_ends_as_undisturbed(tmp_path: Path, own_cache, monkeypatch):
    (whole,), (stopped,) = plan(tmp_path / "whole"), plan(tmp_path / "stopped")
    train(whole, reporter=QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "validate", lambda self: (self.save(), (_ for _ in ()).throw(KeyboardInterrupt)))
        with pytest.raises(KeyboardInterrupt):
            train(stopped, reporter=QUIET)
    train(stopped, resume=True, reporter=QUIET)
    assert difference(whole.output, stopped.output) == 0


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["synthetic-erc", "synthetic-msa"])
def test_a_run_is_evaluated_used_and_taken_apart(tmp_path: Path, own_cache, dataset: str):
    (config,) = plan(tmp_path, dataset=dataset)
    report = train(config, reporter=QUIET)
    assert set(report["alone"]) == {"llm", "opinion"}
    again = evaluate(config.output, reporter=QUIET)
    assert scalars(again["metrics"]) == pytest.approx(scalars(report["metrics"]), abs=1e-6)
    for name, metrics in report["alone"].items():
        assert scalars(again["alone"][name]) == pytest.approx(scalars(metrics), abs=1e-6)

    plug_in = msekit.load_run(config.output)
    rows = list(synthetic_rows(dataset, "test"))[:24]
    answers = plug_in.predict(
        [row.text for row in rows], [row.audio for row in rows], [row.vision for row in rows], estimate="greedy"
    )
    _, _, parts = open_run(config.output, ("test",), reporter=QUIET)
    batch = parts.collators["test"](list(range(24)))
    scores = parts.labels.distribution(parts.model.score(batch).numpy())
    assert np.allclose([list(answer.scores.values()) for answer in answers], scores, atol=1e-5)
    for row, answer in list(zip(rows, answers, strict=True))[:4]:
        written = plug_in.write(row.text, row.audio, row.vision)
        assert written == answer.prediction or float(written) == answer.prediction

    cases = robustness(config.output, reporter=QUIET)["metrics"]
    assert {"without text", "text shuffled", "audio shuffled", "vision shuffled", "the LLM alone"} <= set(cases)
    key = parts.spec.key_metric
    assert cases[FULL][key] == pytest.approx(report["metrics"][key], abs=1e-6)
    for case, name in (("the LLM alone", "llm"), ("the opinion alone", "opinion")):
        assert scalars(cases[case]) == pytest.approx(scalars(report["alone"][name]), abs=1e-6)
    apart = [case for case in cases if case != FULL]
    assert len({tuple(scalars(cases[case]).values()) for case in apart}) > len(apart) / 2, "cases are not one another"


def test_modality_dropout_reaches_the_opinion(tmp_path: Path, own_cache):
    opinion = {}
    for chance in (0.0, 0.5):
        (config,) = plan(tmp_path / str(chance), f"data.modality_dropout={chance}")
        parts = build(config, QUIET)
        train_opinion(config, parts, QUIET, lambda: None)
        opinion[chance] = parts.model.adapter.opinion_head.experts["audio"].weight
    assert not torch.allclose(opinion[0.0], opinion[0.5], atol=1e-3)


def test_a_signal_stops_the_opinion_in_good_order(tmp_path: Path, own_cache):
    (config,) = plan(tmp_path)
    parts, epochs = build(config, QUIET), []

    def heed() -> None:
        epochs.append(1)
        if len(epochs) == 2:
            raise StoppedError("asked to stop")

    with pytest.raises(StoppedError):
        train_opinion(config, parts, QUIET, heed)
    assert len(epochs) == 2


def test_a_signal_while_hidden_states_are_read_stops_the_run(tmp_path: Path, own_cache, monkeypatch):
    (config,) = plan(tmp_path, "adapter.cue=Heard")  # whose states no other test has made
    passes = []

    def read(*arguments: object) -> torch.Tensor:
        passes.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        return read_batch(*arguments)

    monkeypatch.setattr(stored_states, "read_batch", read)
    with pytest.raises(StoppedError, match="hidden states that were read are kept"):
        train(config, False, QUIET)
    assert passes


def test_pseudo_tokens_train_on_however_little_the_llm_is_trusted(tmp_path: Path, own_cache):
    (config,) = plan(tmp_path, "loss.alone=0")
    parts = build(config, QUIET)
    train_opinion(config, parts, QUIET, lambda: None)
    model = parts.model
    model.adapter.llm_weight.fill_(0.0)
    batch = parts.collators["train"](list(range(8)))
    model.train()
    model(batch).backward()
    assert model.adapter.projector.to_text_dim.weight.grad.abs().max() > 0
    model.eval()
    edges = edges_of([model], batch)[0]
    assert torch.allclose(edges.joint, edges.opinion, atol=1e-5)


@pytest.mark.slow
def test_beams_and_samples_write_labels(tmp_path: Path, own_cache):
    (config,) = plan(tmp_path)
    train(config, reporter=QUIET)
    plug_in = msekit.load_run(config.output)
    labels = set(plug_in.labels.names)
    assert plug_in.write("I am here", num_beams=2) in labels
    torch.manual_seed(0)
    assert {plug_in.write("I am here", do_sample=True) for _ in range(3)} <= labels


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (("adapter.name=mse", "loss.alone=3"), r"loss\.alone is of the adapter mse-states"),
        (("adapter.name=mse", "adapter.cue=word"), r"adapter\.cue is of the adapter mse-states"),
        (("adapter=mse-states",), "adapter"),
        (("data=3",), "data"),
        (("adapter.name=[mse]",), "adapter"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(tmp_path: Path, settings: tuple[str, ...], what: str):
    request = RunRequest("tiny-llama", "synthetic-erc", output=tmp_path, overrides=settings)
    with pytest.raises(MsekitError, match=what):
        plan_runs(request)

"""msekit from Python: one call trains on data from memory, and gives the run that the command line gives."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import msekit
from msekit.api.given_data import write_given
from msekit.api.runs import configs
from msekit.cli.main import app
from msekit.data.cache.cache import prepare
from msekit.errors import CallbackError, MsekitError
from msekit.settings.data_of import spec_of

SHORT = {
    "backbone": "tiny-llama",
    "recipe": "kit",
    "epochs": 1,
    "evaluation": {"bootstrap": 0, "integrity": False},
    "quiet": True,
}
LABELS = ("calm", "excited")


def moods() -> list[dict]:
    rng = np.random.default_rng(0)
    samples = []
    for number in range(40):
        split = ("train", "train", "train", "valid", "test")[number // 2 % 5]
        frames = rng.normal(2.0 * (number % 2), 1.0, size=(int(rng.integers(5, 9)), 4)).astype(np.float32)
        samples.append({"id": f"clip{number}", "text": "Here we are.", "label": LABELS[number % 2], "split": split})
        samples[-1]["audio"] = frames
    return samples


def as_pandas(samples: list[dict]):
    import pandas

    return pandas.DataFrame(samples)


def as_dataset(samples: list[dict]):
    import datasets

    plain = [sample | {"audio": sample["audio"].tolist()} for sample in samples]
    names = datasets.ClassLabel(names=list(LABELS))
    return datasets.Dataset.from_list(plain).cast_column("label", names)


def by_split(samples: list[dict]):
    return {
        split: [{k: v for k, v in s.items() if k != "split"} for s in samples if s["split"] == split]
        for split in ("train", "valid", "test")
    }


@pytest.mark.slow
def test_a_call_gives_the_run_that_the_command_gives(tmp_path: Path, own_cache):
    result = msekit.train(
        dataset="synthetic-erc", limit_train=32, optim={"lr": 1e-3}, output=tmp_path / "python", seed=7, **SHORT
    )
    arguments = ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--recipe", "kit", "--epochs", "1"]
    arguments += ["--set", "evaluation.bootstrap=0", "--set", "evaluation.integrity=false", "--limit-train", "32"]
    arguments += ["--set", "optim.lr=1e-3", "--seeds", "7", "--output", str(tmp_path / "command")]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    other = tmp_path / "command" / "seed-7"
    assert result.folder == tmp_path / "python" / "seed-7"
    for name in ("adapter.safetensors", "predictions-test.jsonl"):
        assert (result.folder / name).read_bytes() == (other / name).read_bytes()
    assert (tmp_path / "python" / "summary.json").read_text() == (tmp_path / "command" / "summary.json").read_text()
    assert isinstance(result.config, msekit.TrainConfig)
    again = msekit.evaluate(result, quiet=True)
    assert again["metrics"] == result.metrics
    same = msekit.train(config=result.config, resume=True, quiet=True)
    assert same.report["metrics"] == result.metrics


@pytest.mark.slow
@pytest.mark.parametrize("form", [list, as_pandas, as_dataset, by_split])
def test_samples_in_memory_are_a_data_set(tmp_path: Path, own_cache, form):
    """All forms are the same rows: one run stands for them, which the others are told is theirs."""
    named = {} if form is as_dataset else {"labels": LABELS}
    result = msekit.train(dataset=form(moods()), output=tmp_path / "run", **named, **SHORT)
    assert result.report["dataset"] == "given"
    assert result.report["samples"] == 8
    assert set(result.report["predicted"]) <= set(LABELS)
    assert result.plug_in.predict("Here we are.", audio=moods()[0]["audio"]).prediction in LABELS


TARGETS = {
    "mood": {"classes": ["calm", "glad"]},
    "signs": {"labels": ["smile", "tears"]},
    "power": {"range": [0, 1], "weight": 0.5},
}


def asked() -> list[dict]:
    """Three targets, of which every third row says nothing of one."""
    samples = []
    for number, split in enumerate(["train"] * 12 + ["valid"] * 6 + ["test"] * 6):
        said = {"mood": ("calm", "glad")[number % 2], "signs": ["tears"] if number % 4 else [], "power": number / 24}
        said |= {("mood", "signs", "power")[number % 3]: None}
        samples.append({"text": f"Here we are, {number}.", "split": split} | said)
    return samples


def as_dataset_of_targets(samples: list[dict]):
    """With numbers of classes in the place of names, in another order than the description's."""
    import datasets

    kinds = datasets.Features(
        text=datasets.Value("string"),
        split=datasets.Value("string"),
        mood=datasets.ClassLabel(names=["glad", "calm"]),
        signs=datasets.List(datasets.ClassLabel(names=["tears", "smile"])),
        power=datasets.Value("float64"),
    )
    return datasets.Dataset.from_list(samples, features=kinds)


def as_mappings(samples: list[dict]):
    return [{"text": s["text"], "split": s["split"], "targets": {name: s[name] for name in TARGETS}} for s in samples]


def as_columns(samples: list[dict]):
    """A column for each label, in pandas, numpy's lists among them."""
    import pandas

    rows = []
    for sample in samples:
        row = {name: value for name, value in sample.items() if name != "signs"}
        held = sample["signs"]
        rows.append(row | {f"signs.{one}": np.nan if held is None else one in held for one in ("smile", "tears")})
    return pandas.DataFrame(rows)


@pytest.mark.parametrize("form", [list, as_pandas, as_dataset_of_targets, as_mappings, as_columns, by_split])
def test_several_targets_are_given_like_one(tmp_path: Path, own_cache, form):
    (config,) = configs("tiny-llama", form(asked()), None, None, {"targets": TARGETS, "output": tmp_path})
    labels = {}
    for split in ("train", "valid", "test"):
        labels[split] = prepare(spec_of(config)).split(split).labels
    expected = [[np.nan, 0, 0, 0], [1, np.nan, np.nan, 1 / 24], [0, 0, 1, np.nan], [np.nan, 0, 1, 3 / 24]]
    assert np.allclose(labels["train"][:4], expected, equal_nan=True)
    assert labels["test"].shape == (6, 4)
    assert config.description.targets is not None
    assert config.description.targets["power"].weight == 0.5


@pytest.mark.slow
def test_a_call_trains_several_targets(tmp_path: Path, own_cache):
    chosen = {"targets": TARGETS, "key_metric": "mood:uar", "columns": {"signs": "seen"}}
    renamed = [{"seen" if name == "signs" else name: value for name, value in row.items()} for row in asked()]
    result = msekit.train(dataset=renamed, output=tmp_path / "run", **chosen, **SHORT)
    assert {"mean", "mood:wf1", "signs:macro_f1", "power:mae"} <= result.metrics.keys()
    assert list(result.plug_in.predict("Here we are.").prediction) == ["mood", "signs", "power"]
    assert msekit.evaluate(result, quiet=True)["metrics"] == result.metrics
    assert result.report["options"] == ["targets.power.weight=0.5"], "runs of other weights are no seeds of one"
    again = msekit.train(dataset=renamed, output=tmp_path / "run", resume=True, **chosen, **SHORT)
    assert again.report == result.report


class Stops(msekit.Callback):
    def on_step(self, event: object) -> None:
        raise ValueError("enough")


@pytest.mark.slow
def test_a_run_stopped_within_its_first_epoch_goes_on_with_the_weights_that_it_was_begun_with(
    tmp_path: Path, own_cache
):
    given = {"dataset": asked(), "output": tmp_path / "run", "optim": {"batch_size": 4}} | SHORT
    with pytest.raises(CallbackError, match="after epoch 0, batch"):
        msekit.train(**given, targets=TARGETS, callbacks=[Stops()])
    heavier = TARGETS | {"power": {"range": [0, 1], "weight": 2.0}}
    with pytest.raises(MsekitError, match="the state was saved with other settings"):
        msekit.train(**given, targets=heavier, resume=True)
    assert msekit.train(**given, targets=TARGETS, resume=True).metrics["mean"] is not None


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"targets": ["mood"]}, "`targets` is a mapping"),
        ({"targets": {"mood": ["calm"]}}, "targets.mood"),
        ({"targets": TARGETS, "labels": ["a", "b"]}, "`labels` belongs into one of `targets`"),
        ({"targets": TARGETS, "key_metric": "power:wf1"}, "target 'power' has no metric 'wf1'"),
        ({"targets": TARGETS, "key_metric": "signs:uar"}, "no sample of valid answers 'signs'"),
        ({"labels": ["a", "b"]}, "'signs' is a list"),
    ],
)
def test_wrong_targets_are_named(tmp_path: Path, own_cache, settings: dict, match: str):
    samples = [row | ({"signs": None} if row["split"] == "valid" else {}) for row in asked()]
    if isinstance(settings.get("targets"), dict) and "signs" not in settings["targets"]:
        samples = [{name: value for name, value in row.items() if name != "signs"} for row in samples]
    with pytest.raises(MsekitError, match=match):
        msekit.train(dataset=samples, output=tmp_path / "run", **settings, **SHORT)


@pytest.mark.parametrize(("one", "said"), [(print, "a builtin_function"), (msekit.Callback, "the class Callback")])
def test_what_is_no_callback_is_refused_before_anything_loads(tmp_path: Path, own_cache, one: object, said: str):
    with pytest.raises(MsekitError, match=f"`callbacks` holds {said}"):
        msekit.train(dataset="synthetic-erc", output=tmp_path / "run", callbacks=[one], **SHORT)
    assert not (tmp_path / "run").exists()


def test_the_same_samples_are_the_same_folder(own_cache):
    first, changed = moods(), moods()
    changed[3]["audio"] = changed[3]["audio"] + 1
    assert write_given(first) == write_given(moods()) == write_given(as_pandas(moods()))
    assert write_given(first) != write_given(changed)


@pytest.mark.slow
def test_a_folder_is_a_data_set_and_several_seeds_are_several_runs(tmp_path: Path, own_cache):
    folder = write_given(moods())
    results = msekit.train_seeds(
        dataset=folder, labels=LABELS, seeds=(1, 2), parallel=True, output=tmp_path / "runs", **SHORT
    )
    assert [result.report["seed"] for result in results] == [1, 2]
    assert [result.folder.name for result in results] == ["seed-1", "seed-2"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'.*epochs"),
        ({"test_folds": "all"}, "unknown setting 'test_folds'"),
        ({"optim.lr": -1}, "setting optim.lr"),
        ({"optim": {"rate": 1}}, "unknown setting 'optim.rate'"),
        ({"recipe": "bset"}, "recipe"),
        ({"dataset": []}, "there are no samples"),
        ({"dataset": [3]}, "sample 0 is a int, not a dict"),
        ({"dataset": [{"text": "a", "audio": ["b"]}]}, "'audio' is no array of numbers.*sample 0"),
        ({"dataset": [{"text": "a", "other": []}]}, "'other' is a list"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, own_cache, settings: dict, match: str):
    whole = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "output": tmp_path} | settings
    with pytest.raises(MsekitError, match=match):
        msekit.train(**whole)


def test_a_config_goes_with_nothing_else(tmp_path: Path, own_cache):
    (config,) = configs("tiny-llama", "synthetic-erc", None, None, {"output": tmp_path})
    with pytest.raises(MsekitError, match="goes with no other setting"):
        msekit.train(config=config, epochs=3)
    (other,) = configs(None, None, config, (5,), {})
    assert (other.seed, other.output.name) == (5, "seed-5")


@pytest.mark.slow
def test_the_names_cost_nothing_until_they_are_used():
    program = "import sys, msekit; assert not {'torch', 'pydantic', 'numpy'} & sys.modules.keys(); msekit.train"
    program += "; assert 'torch' not in sys.modules; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_the_readmes_lines_train_predict_and_track(tmp_path: Path, own_cache, monkeypatch, capsys):
    """With the tiny LLM in the place of the one that they name."""
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "msekit.train(" in part)
    lines = [line for line in block.splitlines() if line.startswith(("import", "result", "print(result"))]
    assert len(lines) == 3
    monkeypatch.chdir(tmp_path)
    exec("\n".join(lines).replace("smollm2-135m", "tiny-llama"), {})
    assert capsys.readouterr().out.split()[-1] in ("calm", "glad", "sad", "angry")
    assert list((tmp_path / "runs" / "synthetic-erc-tiny-llama" / "seed-1111" / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_the_description_s_key_metric_selects_the_best_epoch(tmp_path: Path, own_cache):
    """Also where it is not defined in every epoch; and a stopped run does not go on by another one."""
    settings = SHORT | {"epochs": 3, "dataset": "synthetic-erc", "limit_train": 32}
    metrics = ("uar", "f1_of:sad")
    result = msekit.train(**settings, metrics=metrics, key_metric="f1_of:sad", output=tmp_path / "run")
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    values = [line["valid"]["f1_of:sad"] for line in lines]
    defined = [-1 if value is None else value for value in values]
    assert result.report["best_epoch"] == defined.index(max(defined)) + 1
    assert all(set(line["valid"]) == set(metrics) for line in lines)
    (result.folder / "report.json").unlink()
    with pytest.raises(MsekitError, match="not as when the run was stopped: metrics"):
        msekit.train(**settings, metrics=metrics, key_metric="uar", output=tmp_path / "run", resume=True)


def test_what_python_gave_is_seen_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from msekit.cache_contents import entries, remove

    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path))
    folder = write_given(moods())
    (tmp_path / "given" / ".making-1").mkdir()  # another process' that is being written
    (entry,) = entries()
    assert (entry.kind, entry.path) == ("given", folder)
    assert remove(entry)
    assert not folder.exists()
    assert (tmp_path / "given" / ".making-1").exists()


def test_equal_bytes_of_another_shape_are_another_set(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path))
    row = {"text": "a", "label": "calm", "split": "train"}
    frames = np.arange(8, dtype=np.float32)
    flat = write_given([row | {"audio": frames.reshape(2, 4)}])
    assert write_given([row | {"audio": frames.reshape(4, 2)}]) != flat
    assert write_given([row | {"audio": frames.reshape(2, 4).copy()}]) == flat
    assert write_given([row | {"vision": frames.reshape(2, 4)}]) != flat


def test_the_hub_s_unlabelled_samples_have_no_label(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path))
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(LABELS))})
    given = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=kinds)
    lines = (write_given({"train": given}) / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["excited", None]

    class Beyond(list):
        features = kinds

    with pytest.raises(MsekitError, match="no label 2 among 2 classes"):
        write_given({"train": Beyond([{"text": "a", "label": 2}])})

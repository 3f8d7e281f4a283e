"""`msekit sweep` with `search:`: Optuna proposes and prunes, a kill changes nothing, the test split waits."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from msekit.errors import MsekitError
from msekit.experiments.search import Search, _propose, _sampler, is_search, open_study, read_search, run_search
from msekit.reporter import Reporter
from msekit.training.loop import Run

QUIET = Reporter(quiet=True)
BASE = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "recipe": "kit", "data.limit_train": 16}
BASE |= {"optim.epochs": 2, "evaluation.bootstrap": 0, "evaluation.integrity": False}
SPACE = {
    "optim.lr": {"log": ["1e-4", "1e-1"]},
    "data.noise": {"uniform": [0, 0.6]},
    "adapter.pseudo_tokens": {"integer": [2, 4]},
    "loss.balance": {"choice": ["none", "class-balanced"]},
}


def file(folder: Path, **search: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "search.yaml"
    said = {"trials": 3, "startup": 1, "settings": SPACE} | search
    path.write_text(yaml.safe_dump({"output": str(folder / "runs"), "base": BASE, "search": said}))
    return path


def outcome(folder: Path) -> dict:
    """Without what a folder's place changes."""
    found = json.loads((folder / "runs" / "search.json").read_text())
    return found | {"best": found["best"] | {"folder": ""}}


def proposals(folder: Path, kill: random.Random | None = None, sign: float = 1.0) -> list[dict]:
    """What 8 trials are proposed where each is as good as its learning rate; killed now and then between settings."""
    from optuna.trial import Trial, TrialState

    search, found = read_search(file(folder, trials=8, startup=3)), []
    names = list(search.settings)
    while len(found) < 8:
        study = open_study(search, "wf1")
        begun = study.get_trials(states=(TrialState.RUNNING,))
        study.sampler = _sampler(search, "begin")
        trial = Trial(study, begun[0]._trial_id) if begun else study.ask()
        some = names[: kill.randint(0, 3)] if kill and kill.random() < 0.5 else names
        proposed = {name: _propose(search, study, trial, name, search.settings[name]) for name in some}
        if len(proposed) == len(names):
            study.tell(trial.number, sign * proposed["optim.lr"])
            found.append(proposed)
    return found


def test_a_proposal_is_a_function_of_the_trials_before(tmp_path: Path):
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    whole = proposals(tmp_path / "whole")
    assert proposals(tmp_path / "killed", random.Random(0)) == whole
    assert len({json.dumps(proposed) for proposed in whole}) == 8
    turned = proposals(tmp_path / "turned", sign=-1.0)
    assert turned[:3] == whole[:3], "at random"
    assert turned[4:] != whole[4:], "by what was good"


@pytest.mark.slow
def test_killed_twice_it_ends_as_an_undisturbed_one(tmp_path: Path, own_cache, monkeypatch):
    """12 trials; one kill in the middle of an epoch, one between an epoch's validation and the save behind it."""
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    whole, killed = (read_search(file(tmp_path / name, trials=12, startup=4)) for name in ("whole", "killed"))
    run_search(whole, QUIET)
    step, end_epoch = Run.checked, Run.end_epoch

    def die(at: int, original):
        seen = []

        def dies(self, *arguments):
            seen.append(1)
            if len(seen) == at:
                raise SystemExit
            return original(self, *arguments)

        return dies

    for name, original, at in (("checked", step, 6), ("end_epoch", end_epoch, 5)):
        with monkeypatch.context() as patch:
            patch.setattr(Run, name, die(at, original))
            with pytest.raises(SystemExit):
                run_search(killed, QUIET)
    run_search(killed, QUIET)
    ours, theirs = outcome(tmp_path / "killed"), outcome(tmp_path / "whole")
    assert ours == theirs
    assert len(ours["trials"]) == 12
    assert "pruned" in {trial["state"] for trial in ours["trials"]}
    number = ours["best"]["number"]
    folders = [tmp_path / name / "runs" / f"trial-{number:03}" / "seed-1111" for name in ("killed", "whole")]
    assert len({(folder / "adapter.safetensors").read_bytes() for folder in folders}) == 1


@pytest.mark.slow
def test_the_test_split_is_not_opened_before_the_best_is_chosen(tmp_path: Path, own_cache, monkeypatch):
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    from msekit.data.cache.cache import Cache

    opened: list[str] = []
    split = Cache.split

    def watched(self: Cache, name: str):
        opened.append(name)
        return split(self, name)

    monkeypatch.setattr(Cache, "split", watched)
    tested: list[Path] = []
    test = Run.test

    def watched_test(self: Run):
        tested.append(self.config.output)
        assert len(list((tmp_path / "runs").glob("trial-*/seed-1111/metrics.jsonl"))) == 3
        return test(self)

    monkeypatch.setattr(Run, "test", watched_test)
    found = run_search(read_search(file(tmp_path, prune=False)), QUIET)
    assert [str(folder) for folder in tested] == [found["best"]["folder"]]
    assert "test" not in opened[: opened.index("test")]
    reports = list((tmp_path / "runs").glob("trial-*/seed-1111/report.json"))
    assert [str(path.parent) for path in reports] == [found["best"]["folder"]]
    scores = [trial["valid"] for trial in found["trials"]]
    assert found["best"]["valid"] == max(scores)
    best = json.loads((Path(found["best"]["folder"]) / "report.json").read_text())
    assert best["metrics"] == found["best"]["test"]
    again = run_search(read_search(file(tmp_path, prune=False)), QUIET)
    assert again == found


def test_another_search_does_not_go_on_in_the_folder(tmp_path: Path, own_cache):
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    search = read_search(file(tmp_path))
    open_study(search, "wf1")
    open_study(read_search(file(tmp_path, trials=20)), "wf1")
    with pytest.raises(MsekitError, match="another search"):
        open_study(read_search(file(tmp_path, seed=2)), "wf1")


def test_a_search_is_read_as_it_is_written(tmp_path: Path):
    path = file(tmp_path)
    assert is_search(path)
    search = read_search(path)
    assert isinstance(search, Search)
    assert search.settings["optim.lr"].values == (1e-4, 1e-1)
    assert search.settings["adapter.pseudo_tokens"].values == (2, 4)
    config = search.config(7, {"optim.lr": 1e-3, "loss.balance": "class-balanced"})
    assert config.output == tmp_path / "runs" / "trial-007" / "seed-1111"
    assert (config.optim.lr, config.loss.balance) == (1e-3, "class-balanced")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"trials": 0}, "`trials` is needed"),
        ({"trails": 3}, "Did you mean trials"),
        ({"settings": {"optim.lr": [1, 2]}}, "has one kind and a list.*log"),
        ({"settings": {"optim.lr": {"lin": [1, 2]}}}, "no kind 'lin'"),
        ({"settings": {"optim.lr": {"log": [0, 1]}}}, "above 0 for log"),
        ({"settings": {"optim.lr": {"uniform": [2, 1]}}}, "lowest and then the highest"),
        ({"settings": {"optim.rate": {"uniform": [1, 2]}}}, "unknown setting 'optim.rate'"),
        ({"settings": {"optim.lr": {"uniform": [-1, 2]}}}, "setting optim.lr"),
        ({"settings": {"loss.balance": {"choice": ["none"]}}}, "two or more"),
        ({"settings": {"loss.balance": {"choice": ["none", "fair"]}}}, "loss.balance"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_runs(tmp_path: Path, said: dict, match: str):
    with pytest.raises(MsekitError, match=match):
        read_search(file(tmp_path, **said))
    assert not (tmp_path / "runs").exists()


def test_a_trial_that_cannot_be_is_left_behind(tmp_path: Path, own_cache, monkeypatch):
    """It would be taken up again by every later command."""
    from msekit.training import loop

    real = loop.train

    def train(config, **settings):
        if "trial-001" in str(config.output):
            raise MsekitError("these settings do not go together")
        return real(config, **settings)

    monkeypatch.setattr(loop, "train", train)
    search = read_search(file(tmp_path, trials=3))
    run_search(search, QUIET)
    states = [trial.state.name for trial in open_study(search, "wf1").get_trials()]
    assert states.count("FAIL") == 1
    assert "RUNNING" not in states

"""What a newcomer meets: `msekit` alone, an example set, what a first run means, the cache, the catalogues."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from typer.testing import CliRunner

from msekit.backbones.catalogue import BACKBONES
from msekit.cache_contents import entries, remove
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS
from msekit.data.example import EXAMPLES, SIZES
from msekit.data.readers.found_labels import find_set
from msekit.data.verify import verify
from msekit.errors import MsekitError
from msekit.reports.summary import meaning, next_steps
from msekit.settings.plan_runs import RunRequest, plan_runs

REPOSITORY = Path(__file__).parents[1]


def msekit(*words: str | Path) -> str:
    """What a command says, on both streams."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, MsekitError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_msekit_alone_says_what_people_come_for():
    said = msekit()
    for what in ("--config quickstart", "data example moods", "msekit extract", "msekit predict", "msekit --help"):
        assert what in said
    assert all(len(line) <= 120 for line in said.splitlines())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_set_like_ones_own(name: str, tmp_path: Path):
    said = msekit("data", "example", name, "--output", tmp_path / name)
    assert f"--dataset {tmp_path / name / name}.yaml" in said
    spec = find_set(str(tmp_path / name / f"{name}.yaml"), None, {})
    outcome = verify(spec, lambda split, rows: None)
    outcome.check()
    assert {split: check.samples for split, check in outcome.splits.items()} == SIZES
    with pytest.raises(MsekitError, match="already holds something"):
        msekit("data", "example", name, "--output", tmp_path / name)


def test_an_unknown_example_offers_those_there_are(tmp_path: Path):
    with pytest.raises(MsekitError, match="Did you mean moods"):
        msekit("data", "example", "mood", "--output", tmp_path / "mood")


def test_a_made_up_set_s_scores_stand_beside_what_is_known_of_it():
    report = {"dataset": "synthetic-erc", "integrity": {"metrics": {"acc": 0.3, "wf1": 0.2, "f1": {"calm": 0.1}}}}
    other = report | {"integrity": {"metrics": {"acc": 0.2, "wf1": None, "f1": {"calm": 0.1}}}}
    lines = meaning([report, other])
    assert lines[0] == "with audio and vision shuffled between samples: acc 25.00 %, wf1 20.00 %"
    assert "25.00 % by text alone, 50.00 % with one modality, 100.00 % with all" in lines[1]
    (line,) = meaning([report | {"dataset": "moods"}])
    assert line.startswith("with audio and vision shuffled")
    assert meaning([{"dataset": "moods", "integrity": None}]) == []


def test_the_next_steps_are_commands_that_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    steps = next_steps(tmp_path / "runs" / "first" / "seed-1111")
    assert [step.split()[1] for step in steps[1:]] == ["predict", "report", "serve"]
    assert all(f"runs{os.sep}first{os.sep}seed-1111" in step and str(tmp_path) not in step for step in steps[1:])
    for package in ("matplotlib", "uvicorn"):
        monkeypatch.setitem(sys.modules, package, None)
    _, predict, report, serve = next_steps(tmp_path / "runs" / "first" / "seed-1111")
    assert "#" not in predict
    assert report.endswith('# after pip install "msekit[plot]"')
    assert serve.endswith('# after pip install "msekit[serve]"')


def test_the_papers_pairs_are_the_papers_and_say_so(monkeypatch: pytest.MonkeyPatch):
    runs, _ = plan_runs(RunRequest(backbone="llama2-7b", dataset="mosei"))
    assert runs[0].recipe == "paper"
    for backbone, dataset in (("qwen3-0.6b", "mosei"), ("smollm2-135m", "synthetic-erc")):
        runs, _ = plan_runs(RunRequest(backbone=backbone, dataset=dataset))
        assert runs[0].recipe == "best"
    monkeypatch.setattr("msekit.cli.train.train_all", lambda *_: None)
    words = ["train", "--backbone", "llama2-7b", "--dataset", "mosei"]
    assert "--recipe best" in msekit(*words)
    assert "--recipe best" not in msekit(*words, "--recipe", "paper")
    assert "own setting" not in msekit("train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc")


def test_data_list_says_where_features_come_from():
    said = msekit("data", "list")
    for spec in DATASETS.values():
        if spec.hub:
            assert f"hub: {spec.hub}" in said
    assert "made on the spot" in said
    assert "--source" in said


def test_backbone_list_has_licence_size_and_gate(monkeypatch: pytest.MonkeyPatch):
    said = msekit("backbone", "list")
    assert "Llama 3.2 Community, gated" in said
    assert "Gemma, gated" in said
    assert all(name in said for name in BACKBONES)


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path))
        for name, size in (("datasets/moods-1", 3000), ("datasets/old-2", 500), ("downloads/a--b", 100)):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "data").write_bytes(b"x" * size)
        month_ago = time.time() - 30 * 86_400
        os.utime(tmp_path / "datasets" / "old-2" / "data", (month_ago, month_ago))
        return tmp_path

    def test_it_is_listed_with_sizes(self, cache: Path):
        said = msekit("cache", "list")
        for what in ("moods-1", "3.0 kB", "old-2", "30 d", "a--b", str(cache), "hf cache ls"):
            assert what in said

    def test_only_what_is_named_and_old_is_removed(self, cache: Path):
        msekit("cache", "clean", "datasets", "--older", "7", "--yes")
        assert [entry.name for entry in entries()] == ["moods-1", "a--b"]
        msekit("cache", "clean", "--yes")
        assert not entries()
        assert "nothing to remove" in msekit("cache", "clean")

    def test_nothing_is_removed_unasked(self, cache: Path):
        done = CliRunner().invoke(app, ["cache", "clean"], input="n\n")
        assert done.exit_code == 1
        assert len(entries()) == 3

    def test_what_is_being_written_stays(self, cache: Path):
        (entry,) = entries(["downloads"])
        with FileLock(cache / "downloads" / "a--b" / ".lock"):
            assert not remove(entry)
            assert "is in use by another process and stays" in msekit("cache", "clean", "downloads", "--yes")
        assert remove(entry)
        assert not entry.path.exists()

    def test_an_unknown_kind_is_refused(self, cache: Path):
        with pytest.raises(MsekitError, match="Did you mean datasets"):
            msekit("cache", "clean", "dataset", "--yes")


class TestLanguages:
    def test_any_language_goes_with_a_prompt(self):
        described = {"labels": ("ruhig", "froh"), "language": "de", "prompt": "Gefühl (0 ruhig 1 froh): "}
        spec = DATASETS["synthetic-erc"].model_copy(update={"language": "de", "prompt": described["prompt"]})
        from msekit.model.wording import standard_cue

        assert standard_cue(spec) == " Gefühl (0 ruhig 1 froh):"
        assert standard_cue(DATASETS["synthetic-erc"]) == " Emotion of the speaker:"

    def test_without_a_prompt_it_is_refused(self, tmp_path: Path):
        msekit("data", "example", "moods", "--output", tmp_path / "moods")
        with pytest.raises(MsekitError, match="needs a `prompt`"):
            find_set(str(tmp_path / "moods" / "moods.yaml"), None, {"language": "de"})

    @pytest.mark.slow
    def test_a_run_in_german_trains(self, tmp_path: Path):
        msekit("data", "example", "moods", "--output", tmp_path / "moods")
        words = ["train", "--backbone", "tiny-llama", "--dataset", tmp_path / "moods" / "moods.yaml"]
        words += ["--language", "de", "--prompt", "Gefühl: ", "--epochs", "1", "--limit-train", "16"]
        msekit(*words, "--output", tmp_path / "run")
        described = (tmp_path / "run" / "seed-1111" / "adapter.json").read_text(encoding="utf-8")
        assert '"cue": " Gefühl:"' in described


def test_setup_says_what_it_takes_and_what_comes_next():
    """By make's own account of what it would do."""
    command = ["make", "--dry-run", "setup", "VENV=elsewhere"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for what in ("GB", "minutes", "activate", "msekit train --config quickstart --backbone tiny-llama"):
        assert what in done.stdout


@pytest.mark.slow
def test_a_first_run_says_what_it_is_worth_and_what_to_try(tmp_path: Path):
    words = ["train", "--config", "quickstart", "--backbone", "tiny-llama", "--epochs", "1", "--limit-train", "16"]
    done = subprocess.run(
        [sys.executable, "-m", "msekit", *words, "--output", tmp_path / "run"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert "with audio and vision shuffled between samples: acc" in done.stdout
    assert "25.00 % by text alone, 50.00 % with one modality" in done.stdout
    (predict,) = (line.split() for line in done.stderr.splitlines() if line.startswith("  msekit predict"))
    assert Path(tmp_path, predict[2]).is_dir()
    assert yaml.safe_load((tmp_path / "run" / "seed-1111" / "config.yaml").read_text())["recipe"] == "best"

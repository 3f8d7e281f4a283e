"""Runs → groups → Markdown, JSON and the terminal."""

from __future__ import annotations

import json
import statistics

import pytest
from typer import Typer
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.cli.report import report
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.reports.aggregate import aggregate
from msekit.reports.render import render_json, render_markdown, render_table
from msekit.reports.summary import summarise
from msekit.runs.report import collect

ACCS = (0.62, 0.64, 0.60)


def write_run(folder, seed=1111, config=None, **changes):
    """A finished run as `train` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "dataset": "meld",
        "backbone": "qwen-1.8b",
        "adapter": "mse",
        "recipe": "paper",
        "seed": seed,
        "split": "test",
        "samples": 2610,
        "estimate": "greedy",
        "metrics": {"acc": 0.62, "wf1": 0.6, "per_class_f1": {"joy": 0.5, "fear": None}},
        "confidence": {"acc": [0.6, 0.64], "wf1": [0.58, 0.62]},
        "data_fingerprint": "d1",
        "backbone_fingerprint": "b1",
        "prompt_sha256": "p1",
    }
    (folder / "report.json").write_text(json.dumps(values | changes))
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return folder


@pytest.fixture
def three_seeds(tmp_path):
    for seed, acc in zip((1111, 2222, 3333), ACCS, strict=True):
        write_run(tmp_path / "run" / f"seed-{seed}", seed, metrics={"acc": acc, "wf1": acc - 0.02})
    return tmp_path / "run"


def test_mean_and_std_beside_the_paper(three_seeds):
    (group,) = aggregate(collect([three_seeds]))
    assert group.seeds == [1111, 2222, 3333]
    acc = group.metrics["acc"]
    assert acc.mean == pytest.approx(0.62)
    assert acc.std == pytest.approx(statistics.stdev(ACCS)) == pytest.approx(0.02)
    assert acc.paper == 0.6218
    assert acc.difference == pytest.approx(-0.0018)
    assert acc.confidence is None
    assert group.warnings == []


def test_the_integrity_check_stands_beside_the_score(tmp_path):
    for seed, acc in ((1, 0.2), (2, 0.3)):
        write_run(tmp_path / f"seed-{seed}", seed, integrity={"metrics": {"acc": acc, "wf1": None}})
    (group,) = aggregate(collect([tmp_path]))
    assert group.metrics["acc"].shuffled == pytest.approx(0.25)
    assert group.metrics["wf1"].shuffled is None
    assert "| 25.00 % |" in render_markdown([group])


def test_one_seed_has_no_std_but_its_own_interval(tmp_path):
    (group,) = aggregate(collect([write_run(tmp_path / "one")]))
    assert group.metrics["acc"].std is None
    assert group.metrics["acc"].confidence == [0.6, 0.64]
    assert "per_class_f1" not in group.metrics
    assert "62.00 [60.00, 64.00] %" in render_markdown([group])


def test_a_seed_and_its_folder_count_once(three_seeds):
    assert len(collect([three_seeds, three_seeds / "seed-1111"])) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("recipe", "kit"),
        ("estimate", "mean"),
        ("split", "valid"),
        ("adapter", "mag"),
        ("without", ["vision"]),
        ("limit_train", 320),
    ],
)
def test_what_differs_is_not_averaged(tmp_path, key, value):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", 2222, **{key: value})]
    groups = aggregate(collect(runs))
    assert [group.seeds for group in groups] == [[1111], [2222]]


def test_only_test_results_of_published_pairs_stand_beside_the_paper(tmp_path):
    cases = ({"split": "valid"}, {"backbone": "tiny-llama"}, {"without": ["audio"]}, {"limit_train": 9})
    for number, changes in enumerate(cases):
        (group,) = aggregate(collect([write_run(tmp_path / str(number), **changes)]))
        assert group.metrics["acc"].paper is None
        assert group.metrics["acc"].difference is None


def test_what_a_run_was_denied_stands_in_its_title(tmp_path):
    run = write_run(tmp_path / "run", without=["audio", "vision"], limit_train=None)
    (group,) = aggregate(collect([run]))
    assert group.title == "meld · qwen-1.8b · mse · paper · greedy estimate · test · without audio, vision"


def test_undefined_metrics(tmp_path):
    runs = [
        write_run(tmp_path / str(seed), seed, dataset="sims-v2", metrics={"corr": corr, "acc2_weak": None, "mae": 0.3})
        for seed, corr in ((1, 0.5), (2, None))
    ]
    (group,) = aggregate(collect(runs))
    assert (group.metrics["corr"].mean, group.metrics["corr"].seeds, group.metrics["corr"].std) == (0.5, 1, None)
    assert group.metrics["acc2_weak"].mean is None
    text = render_markdown([group])
    assert "| acc2_weak | undefined | 73.09 % |  |  |" in text
    assert "| corr | 0.500 (defined in 1 of 2) |" in text
    assert "| mae | 0.300 ± 0.000 | 0.311 | -0.011 |  |" in text


@pytest.mark.parametrize("key", ["data_fingerprint", "backbone_fingerprint", "prompt_sha256"])
def test_seeds_on_different_inputs_are_told(tmp_path, key):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", 2222, **{key: "other"})]
    (group,) = aggregate(collect(runs))
    assert len(group.warnings) == 1
    assert key in group.warnings[0]
    assert key in render_markdown([group])


def test_seeds_with_different_settings_are_told(tmp_path):
    runs = [
        write_run(tmp_path / "a", 1, config="optim: {lr: 0.001}\ntrain: {seed: 1}\noutput: a\n"),
        write_run(tmp_path / "b", 2, config="optim: {lr: 0.002}\ntrain: {seed: 2}\noutput: b\n"),
    ]
    (group,) = aggregate(collect(runs))
    assert group.warnings == ["the seeds were run with different optim.lr: 0.001, 0.002"]


def test_a_repeated_seed_and_a_collapse_are_told(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", collapsed_to="neutral")]
    (group,) = aggregate(collect(runs))
    assert "seed 1111 occurs 2 times" in group.warnings[0]
    assert "'neutral' to every sample" in group.warnings[1]


@pytest.mark.parametrize(("recognised", "told"), [(2, True), (3, False)])
def test_a_run_that_knows_fewer_than_half_of_the_classes_is_told(tmp_path, recognised: int, told: bool):
    by_class = {name: 0.4 * (place < recognised) for place, name in enumerate(("joy", "anger", "fear", "awe", "ire"))}
    run = write_run(tmp_path, metrics={"acc": 0.5, "per_class_f1": by_class | {"in neither": None}})
    (group,) = aggregate(collect([run]))
    assert group.warnings == ["seed 1111: 2 of 5 classes recognised, none of fear, awe, ire"] * told


def test_unusable_folders(tmp_path):
    with pytest.raises(MsekitError, match="no such run folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(MsekitError, match="no finished run"):
        collect([tmp_path])
    (tmp_path / "seed-1111").mkdir()
    with pytest.raises(MsekitError, match="none finished"):
        collect([tmp_path])
    (tmp_path / "seed-1111" / "report.json").write_text("{")
    with pytest.raises(MsekitError, match="the report is damaged"):
        collect([tmp_path])
    (tmp_path / "seed-1111" / "report.json").write_text('{"dataset": "meld"}')
    with pytest.raises(MsekitError, match="no 'backbone'"):
        collect([tmp_path])


def test_json_is_in_fractions_and_complete(three_seeds):
    (group,) = json.loads(render_json(aggregate(collect([three_seeds]))))
    assert group["dataset"] == "meld"
    assert group["n"] == 3
    assert group["metrics"]["acc"]["mean"] == pytest.approx(0.62)
    assert set(group["metrics"]["acc"]) == {"mean", "std", "seeds", "confidence", "paper", "difference", "shuffled"}


def test_table_names_the_run_and_keeps_brackets(tmp_path, capsys):
    render_table(aggregate(collect([write_run(tmp_path / "one")])), Reporter())
    shown = capsys.readouterr().out
    assert "meld · qwen-1.8b · mse · paper" in shown
    assert "62.00 [60.00, 64.00] %" in shown


@pytest.fixture
def command():
    app = Typer()
    app.command()(report)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_formats(command, three_seeds):
    (three_seeds / "seed-4444").mkdir()
    result = command(three_seeds, "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["n"] == 3
    assert "seed-4444 is unfinished" in result.stderr
    assert command(three_seeds, "--format", "markdown").stdout.startswith("### meld")
    table = command(three_seeds)
    assert "62.00 ± 2.00 %" in table.stdout
    assert "62.00 ± 2.00 %" not in table.stderr
    assert command(three_seeds, "--format", "pdf").exit_code == 2


def test_context_and_missing_modalities_make_other_experiments(tmp_path):
    """Their defaults do not: runs from before these settings existed stay comparable."""
    settings = [{}, {"context": 0, "on_missing": "zero", "modality_dropout": 0.0, "quantization": "none"}]
    settings += [{"context": 3}, {"on_missing": "learned"}, {"modality_dropout": 0.3}, {"options": ["optim.ema=0.9"]}]
    for seed, changes in enumerate(settings):
        write_run(tmp_path / "run" / f"seed-{seed}", seed, **changes)
    groups = aggregate(collect([tmp_path / "run"]))
    assert [group.seeds for group in groups] == [[0, 1], [2], [3], [4], [5]]
    shown = [group.title.rpartition("test · ")[2] for group in groups[1:]]
    assert shown == ["context 3", "on_missing learned", "modality_dropout 0.3", "options optim.ema=0.9"]
    assert groups[0].title.endswith("greedy estimate · test")


def test_the_summary_keeps_what_makes_seeds_less_comparable(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"seed-{seed}", seed, config=f"optim: {{epochs: {seed}}}\n")
    report = json.loads((tmp_path / "seed-1" / "report.json").read_text())
    assert summarise(tmp_path, report)["warnings"] == ["the seeds were run with different optim.epochs: 1, 2"]


def test_a_table_on_the_terminal_has_no_file(three_seeds, tmp_path):
    done = CliRunner().invoke(app, ["report", str(three_seeds), "--output", str(tmp_path / "r.md")])
    assert isinstance(done.exception, MsekitError)
    assert "--format" in str(done.exception.fix)

"""The layers of a run's settings, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from msekit.errors import MsekitError
from msekit.settings.data_of import spec_of
from msekit.settings.plan_runs import RunRequest, plan_runs
from msekit.settings.recipes import BEST
from msekit.settings.resolve import dump, resolve, validated


def run(backbone="smollm2-135m", dataset="synthetic-erc", task="erc", overrides=(), **given):
    return resolve({"backbone": backbone, "dataset": dataset, "output": "out", **given}, task=task, overrides=overrides)


def test_the_papers_pairs_default_to_the_papers_settings():
    config = run("qwen-1.8b", "sims-v2", "msa")
    assert config.recipe == "paper"
    assert (config.optim.lr, config.optim.batch_size, config.optim.eps) == (5e-4, 16, 1e-4)
    assert (config.optim.epochs, config.optim.patience, config.data.text_limit) == (30, 10, 50)
    assert (config.adapter.audio_hidden, config.adapter.vision_hidden) == (64, 64)
    assert config.adapter.conditioning == "paper"
    assert not config.data.standardise
    assert (config.data.trim, config.data.max_frames, config.data.noise) == (0, None, 0)
    assert config.evaluation.estimate == "greedy"


@pytest.mark.parametrize("task", ["erc", "msa"])
def test_recipe_best_is_kit_and_what_did_better(task):
    best, kit = (run("x", "y", task, recipe=name).model_dump() for name in ("best", "kit"))
    assert {key for key, value in best.items() if value != kit[key]} == {"recipe", *BEST[task]}
    assert best["adapter"]["name"] == "mse-states"
    assert (best["loss"]["balance"], best["layout"]) == (
        {"erc": "class-balanced", "msa": "none"}[task],
        "prompt-first",
    )
    assert run("x", "y", "msa", recipe="best", layout="paper").layout == "paper"


def test_every_other_pair_defaults_to_the_best():
    config = run()
    assert (config.recipe, config.adapter.name) == ("best", "mse-states")
    assert run("qwen-1.8b", "sims-v2", "msa", adapter={"name": "mse-states"}).recipe == "best"


@pytest.mark.parametrize(
    "named", [{"adapter": {"name": "mse"}}, {"adapter": {"ablate": "no-msf"}}, {"data": {"on_missing": "learned"}}]
)
def test_the_papers_plug_in_defaults_to_the_kit(named):
    config = run(**named)
    assert (config.recipe, config.adapter.name) == ("kit", "mse")
    assert (config.optim.lr, config.optim.eps, config.optim.batch_size) == (2e-3, 1e-8, 16)
    assert (config.optim.epochs, config.optim.patience) == (15, 5)
    assert (config.adapter.pseudo_tokens, config.adapter.audio_hidden, config.adapter.vision_hidden) == (4, 64, 32)
    assert config.adapter.conditioning == "unit"
    assert config.data.standardise
    assert config.evaluation.estimate == "greedy"


def test_the_kit_reads_intensities_its_own_way():
    config = run(task="msa", dataset="synthetic-msa", recipe="kit")
    assert (config.data.noise, config.loss.expected, config.evaluation.estimate) == (1.0, 3.0, "mean")
    assert config.adapter.conditioning == "unit"
    paper = run(task="msa", dataset="synthetic-msa", recipe="paper")
    assert (paper.data.noise, paper.loss.expected, paper.evaluation.estimate) == (0.0, 0.0, "greedy")


def test_the_recipe_kit_on_a_pair_of_the_papers_takes_none_of_its_settings():
    assert run("qwen-1.8b", "sims-v2", "msa", recipe="kit").optim.lr == 2e-3


def test_a_papers_backbone_by_its_hub_id_is_the_papers_backbone():
    config = run("meta-llama/Llama-2-7b-hf", "mosei", "msa")
    assert (config.backbone, config.recipe, config.optim.lr) == ("llama2-7b", "paper", 5e-5)


def test_later_layers_win(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("optim: {lr: 0.1, epochs: 7}\nseed: 5\n")
    config = resolve(
        {"backbone": "b", "dataset": "d", "output": "o", "recipe": "kit", "optim": {"epochs": 8, "patience": None}},
        task="erc",
        run_file=file,
        overrides=["optim.lr=1e-4", "data.without=[audio, vision]"],
    )
    assert (config.optim.lr, config.optim.epochs, config.optim.patience, config.seed) == (1e-4, 8, 5, 5)
    assert config.data.without == ("audio", "vision")


def test_the_resolved_run_reads_back_as_itself():
    config = run(overrides=["optim.clip_norm=null"])
    assert validated(yaml.safe_load(dump(config))) == config


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.batchsize=8", "Did you mean optim.batch_size?"),
        ("adaptor.hidden=8", "Did you mean adapter"),
        ("optim.batch_size=0", "optim.batch_size"),
        ("data.without=[smell]", "data.without"),
        ("optim.lr=.inf", "optim.lr"),
        ("seed=5", "--seeds"),
    ],
)
def test_wrong_settings_name_the_key(override, expected):
    with pytest.raises(MsekitError, match=expected.replace("?", r"\?").replace(".", r"\.")):
        run(overrides=[override])


@pytest.mark.parametrize("targets", [False, True])
def test_a_run_file_says_where_a_set_of_ones_own_lies_and_what_it_is(tmp_path: Path, targets: bool):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "samples.jsonl").write_text('{"text": "Well.", "label": "calm", "split": "train"}\n')
    several = {"targets": {"label": {"classes": ["calm", "glad"]}}}
    said = {"targets": {"mood": {"classes": ["calm", "glad"]}}} if targets else {"labels": ["calm", "glad"]}
    file = tmp_path / "run.yaml"
    whole = {"backbone": "tiny-llama", "dataset": "mine", "source": str(tmp_path / "mine")}
    file.write_text(yaml.safe_dump(whole | {"description": said}))
    (config,), _ = plan_runs(RunRequest(run_file=str(file), output=tmp_path / "out"))
    spec = spec_of(config)
    assert (spec.task, spec.source) == ("targets" if targets else "erc", tmp_path / "mine")
    again = validated(yaml.safe_load(dump(config)))
    assert again == config
    file.write_text(yaml.safe_dump(whole | {"description": several}))
    with pytest.raises(MsekitError, match="a target cannot be called 'label'"):
        plan_runs(RunRequest(run_file=str(file), output=tmp_path / "out"))

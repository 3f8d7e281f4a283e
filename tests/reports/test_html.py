"""The HTML report of real runs: whole, self-contained, every figure there; and what is taken away from a run."""

from __future__ import annotations

import base64
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.catalogue import DATASETS
from msekit.reporter import Reporter
from msekit.reports import figures
from msekit.reports.html import html_report
from msekit.runs.predictions import Predictions
from msekit.settings.resolve import resolve
from msekit.studies.robustness import robustness
from msekit.studies.sensitivity import sensitivity, wordings
from msekit.training.loop import train

QUIET = Reporter(quiet=True)


class Page(HTMLParser):
    """Tags with their attributes, and whether every opened tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module", params=[("synthetic-erc", "paper"), ("synthetic-msa", "prompt-first")])
def runs(request, tmp_path_factory) -> Path:
    """One seed of a short run, tested also with modalities withheld."""
    dataset, layout = request.param
    folder = tmp_path_factory.mktemp(dataset)
    given = {"backbone": "tiny-llama", "dataset": dataset, "output": folder / "seed-1", "seed": 1, "layout": layout}
    given |= {"data": {"limit_train": 32}, "optim": {"epochs": 2}, "evaluation": {"bootstrap": 5}}
    train(resolve(given, task=dataset[-3:]), reporter=QUIET)
    return folder


@pytest.mark.slow
def test_the_page_is_whole_and_self_contained(runs: Path):
    found = robustness(runs, reporter=QUIET)
    cases = {"without text", "without audio", "without vision", "neither", "text shuffled", "audio shuffled"}
    alone = {"the LLM alone", "the opinion alone"}
    assert set(found["metrics"]) == {"all there", "vision shuffled", *cases, *alone}
    report = json.loads((runs / "seed-1" / "report.json").read_text())
    assert found["metrics"]["all there"] == report["metrics"]
    assert found["metrics"]["neither"] != report["metrics"]
    text = html_report([runs])
    page = Page()
    page.feed(text)
    assert page.open == []
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    common = {"loss by epoch", "reliability", "robustness to missing modalities"}
    own = {"validation mae by epoch", "true and predicted intensity"}
    if "erc" in runs.name:
        own = {"validation wf1 by epoch", "confusion matrix", "F1 by class"}
    assert {attributes["alt"] for attributes in images} == common | own
    for attributes in images:
        svg = base64.b64decode(attributes["src"].removeprefix("data:image/svg+xml;base64,"))
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert len(svg) > 2000
    assert not re.search(r"(src|href)=\"(?!data:)", text), "nothing is loaded from elsewhere"
    assert not any(tag == "script" for tag, _ in page.tags)
    for expected in (report["data_fingerprint"], "validation", "shuffled", "viewport", "evaluation:"):
        assert expected in text


@pytest.mark.slow
def test_groups_of_one_data_set_stand_in_one_table(runs: Path, tmp_path: Path):
    """And runs with another loss are another group, without a figure fewer."""
    given = {"backbone": "tiny-llama", "dataset": runs.name[:13], "output": tmp_path / "seed-1", "seed": 1}
    given |= {"data": {"limit_train": 32}, "optim": {"epochs": 1, "ema": 0.5}, "evaluation": {"bootstrap": 0}}
    given |= {"recipe": "kit", "adapter": {"conditioning": "paper"}}
    train(resolve(given, task=runs.name[10:13]), reporter=QUIET)
    text = html_report([runs, tmp_path])
    assert text.count("optim.ema=0.5, adapter.conditioning=paper") == 2
    overview, _, rest = text.partition("</table>")
    assert "<th>seeds</th>" in overview
    assert overview.count("<tr>") == 3
    assert "<th>seeds</th>" not in rest


@pytest.mark.slow
def test_other_wordings_ask_for_the_same_answers(runs: Path):
    report = json.loads((runs / "seed-1" / "report.json").read_text())
    found = sensitivity(runs, orders=2, reporter=QUIET)
    assert found["metrics"]["as trained"] == report["metrics"]
    prompts = found["prompts"]
    assert len(set(prompts.values())) == len(prompts) >= 4
    if "erc" in runs.name:
        assert {name for name in prompts if name.startswith("order")} == {"order 1", "order 2"}
        for prompt in prompts.values():
            assert all(f"{number} {label}" in prompt for number, label in enumerate(("calm", "glad", "sad", "angry")))
    name = "wf1" if "erc" in runs.name else "mae"
    values = [metrics[name] for metrics in found["metrics"].values()]
    assert found["spread"][name]["max"] == max(values) >= min(values) == found["spread"][name]["min"]


def test_words_in_figures_are_words_of_any_script(recwarn):
    seeds = [Predictions(["a", "b"], np.array([0, 1]), np.array([1, 1]), np.arange(2), np.eye(2))]
    found = figures.confusion(seeds, ("愤怒", "高兴"))
    assert found.count("愤怒") == 2
    assert not recwarn.list


@pytest.mark.slow
def test_the_command_writes_a_file(runs: Path, tmp_path: Path):
    target = tmp_path / "new" / "report.html"
    done = CliRunner().invoke(app, ["report", str(runs), "--format", "html", "--output", str(target)])
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert target.read_text().startswith("<!DOCTYPE html>")


def test_other_orders_are_other_orders():
    two = DATASETS["synthetic-erc"].model_copy(update={"labels": ("calm", "glad")})
    found = wordings(two, orders=3)
    assert [name for name in found if name.startswith("order")] == ["order 1"]
    assert "0 calm" in found["order 1"].partition("1 glad")[2]
    three = wordings(DATASETS["synthetic-erc"].model_copy(update={"labels": ("a", "b", "c")}), orders=9)
    assert len(set(three.values())) == len(three)
    assert sum(name.startswith("order") for name in three) == 5


def test_a_class_without_f1_is_not_drawn_as_zero(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "barh", lambda self, place, width, **_: drawn.append((place, width)))
    found = figures.class_f1([{"joy": 0.5, "fear": None}, {"joy": None, "fear": None}])
    assert drawn == [(0, 50.0)]
    assert "fear (undefined)" in found


@pytest.mark.slow
def test_robustness_on_other_data_stays_out_of_the_run(runs: Path, tmp_path: Path):
    copy = Path(shutil.copytree(runs / "seed-1", tmp_path / "seed-1"))
    (copy / "robustness.json").unlink(missing_ok=True)
    report = json.loads((copy / "report.json").read_text()) | {"data_fingerprint": "0" * 64}
    (copy / "report.json").write_text(json.dumps(report))
    assert robustness(copy, reporter=QUIET)["metrics"]
    assert not (copy / "robustness.json").exists()

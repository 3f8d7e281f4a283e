"""CONTRIBUTING's example of one more baseline works as it is printed: a file and an entry, and the command runs it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import torch
from rival_samples import CLASSES, batch, some

from msekit.baselines import catalogue
from msekit.baselines.run import run_baseline
from msekit.baselines.trainer import make_network
from msekit.data.catalogue import DATASETS
from msekit.reporter import Reporter

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_one_file_and_one_entry_make_a_baseline(tmp_path: Path, monkeypatch):
    section = CONTRIBUTING.read_text(encoding="utf-8").partition("## Add a baseline")[2]
    code, entry = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:2]
    module = ModuleType("msekit.baselines.averages")
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    given = {"Entry": catalogue.Entry}
    exec(f"table = {{{entry}}}", given)
    for name, its in given["table"].items():
        monkeypatch.setitem(catalogue.BASELINES, name, its)
    network, given = make_network("averages", CLASSES).double().eval(), batch()
    outputs = network(given)
    assert torch.allclose(network(some(given, [1], padding=2)), outputs[1:2])
    asked = {"seed": 1, "epochs": 1, "limit_train": 16, "reporter": Reporter(quiet=True)}
    report = run_baseline("averages", DATASETS["synthetic-erc"], output=tmp_path / "run", **asked)
    assert report["adapter"] == "averages"
    assert report["apart"] == "no paper"


def test_the_guide_names_every_baseline():
    guide = (CONTRIBUTING.parent / "docs" / "baselines.md").read_text(encoding="utf-8")
    for name in catalogue.BASELINES:
        assert re.search(rf"^\| .*`{name}`", guide, re.MULTILINE), name

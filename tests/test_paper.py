"""The paper's tables as data, against the paper's own text."""

from __future__ import annotations

import os
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from msekit import paper
from msekit.backbones.catalogue import BACKBONES
from msekit.data.catalogue import DATASETS

DATA = Path(os.environ.get("MSEKIT_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
PAPER = DATA.parent / "paper" / "mse_adapter.md"
HEADINGS = {"Acc-2": "acc2", "F1": "f1", "Acc-7": "acc7", "MAE": "mae", "Corr": "corr", "Acc2_weak": "acc2_weak"}
HEADINGS |= {"Acc": "acc", "WF1": "wf1"}


class _Cells(HTMLParser):
    """The rows of one HTML table: (text, columns it spans) of every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, int]]] = []

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append(("", int(dict(attrs).get("colspan", 1))))

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            text, span = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, span)


def printed_tables() -> list[list[list[tuple[str, int]]]]:
    """The paper's five tables, in their order."""
    if not PAPER.is_file():
        pytest.skip(f"the paper's text is not at {PAPER} (MSEKIT_TEST_DATA names the folder beside it)")
    tables = []
    for html in re.findall(r"<table>.*?</table>", PAPER.read_text(encoding="utf-8")):
        parser = _Cells()
        parser.feed(html)
        tables.append(parser.rows)
    assert len(tables) == 5
    return tables


def plain(name: str) -> str:
    """A model's name without marks and joints: UniSA-GPT2 and UniSAGPT2 are one."""
    return re.sub(r"[^A-Za-z0-9/,]", "", name)


def printed_cells(rows: list[list[tuple[str, int]]]) -> dict[tuple[str, str, str], str]:
    """(model, data set, metric) → the printed number, empty cells (dashes, read as 1 or blank) left out."""
    sets = [text.lower() for text, span in rows[0] for _ in range(span) if text.lower() in DATASETS]
    columns = [(name, HEADINGS[text]) for name, (text, _) in zip(sets, rows[1], strict=True)]
    return {
        (plain(row[0][0]), *column): text
        for row in rows[2:]
        for column, (text, _) in zip(columns, row[1:], strict=False)
        if "." in text
    }


@pytest.mark.parametrize("table", [paper.TABLE2, paper.TABLE3, paper.TABLE4, paper.TABLE5], ids=lambda t: t.number)
def test_tables_equal_the_paper(table):
    rows = printed_tables()[table.number - 1]
    printed = printed_cells(rows)
    ours = {(plain(row.model), *key): value for row in table.rows for key, value in row.cells.items()}
    assert set(printed) == set(ours)
    for key in random.Random(table.number).sample(sorted(printed), min(60, len(printed))):
        assert float(printed[key]) == ours[key], key
    starred = {plain(row[0][0]) for row in rows[2:] if "*" in row[0][0]}
    assert {plain(row.model) for row in table.rows if row.starred} == starred


def test_table1_equals_the_paper():
    rows = printed_tables()[0]
    models = {f"MSE-{printed}": name for name, printed in paper._MODEL_NAMES.items()}
    for row in rows[2:]:
        millions = [float(number) for text, _ in row[1:] for number in re.findall(r"([\d.]+)M", text)]
        assert millions == [paper.TABLE1[models[row[0][0]], dataset] for dataset in paper.PAPER_DATASETS]


def test_table5_parameters_equal_the_paper():
    printed = {row[0][0]: float(row[-1][0].rstrip("M")) for row in printed_tables()[4][2:]}
    assert printed == {row.model: row.parameters for row in paper.TABLE5.rows}


def test_paper_row_gives_what_is_printed():
    row = paper.paper_row("qwen-1.8b", "sims-v2")
    assert row == {"acc2": 80.44, "f1": 80.24, "acc2_weak": 73.09, "mae": 0.311, "corr": 0.678}
    assert paper.paper_row("chatglm3-6b", "cherma") == {"acc": 72.9, "wf1": 72.73}
    assert paper.paper_row("chatglm3-6b", "meld", "mag") == {"acc": 60.38, "wf1": 59.81}


@pytest.mark.parametrize(
    "key", [("smollm2-135m", "meld"), ("qwen-1.8b", "meld6"), ("qwen-1.8b", "meld", "mag"), ("x", "y")]
)
def test_what_the_paper_does_not_report_is_empty(key):
    assert paper.paper_row(*key) == {}


def test_every_published_pair_is_complete_and_in_the_catalogues():
    pairs = {(backbone, dataset) for backbone in paper.PAPER_BACKBONES for dataset in paper.PAPER_DATASETS}
    assert set(paper.PUBLISHED) == set(paper.TABLE1) == pairs
    for backbone, dataset in pairs:
        assert backbone in BACKBONES
        assert paper.PUBLISHED[backbone, dataset].text_limit == DATASETS[dataset].text_limit
        assert DATASETS[dataset].key_metric in paper.paper_row(backbone, dataset)


def test_published_settings_of_the_cell_that_departs_from_table3s_run():
    assert paper.PUBLISHED["qwen-1.8b", "meld"] == paper.PublishedSettings(5e-4, 16, 4, 64, 32, 50, 8, 65)

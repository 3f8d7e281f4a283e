"""`train --dry-run` shows one training sample as the model sees it, under the id that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from msekit.reporter import Reporter
from msekit.settings.resolve import resolve
from msekit.training.build import build
from msekit.training.dry_run import sequence_table


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        lines = ["id,text,label,dialogue_id"]
        lines += [
            "opens,Hello there.,calm,1",
            "follows,It is good to see you again today.,glad,1",
            "ends,So are we.,calm,1",
        ]
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    yaml = tmp_path / "set.yaml"
    yaml.write_text("name: talk\ntask: erc\nlabels: [calm, glad]\nlayout: csv\nsource: set\n")
    return yaml


@pytest.mark.parametrize("layout", ["paper", "prompt-first"])
@pytest.mark.parametrize(("context", "shown"), [(0, "opens"), (1, "ends")])
def test_the_title_names_the_sample_that_the_table_shows(dialogues: Path, tmp_path: Path, layout, context, shown):
    settings = {"backbone": "tiny-llama", "dataset": str(dialogues), "output": tmp_path / "none", "layout": layout}
    config = resolve(settings | {"data": {"context": context}}, task="erc")
    parts = build(config, Reporter(quiet=True), splits=("train",))
    table = sequence_table(parts)
    assert str(table.title) == f"training sample {shown}"
    sample = parts.collators["train"].split.ids.index(shown)
    tokens = parts.backbone.tokenizer.convert_ids_to_tokens(parts.collators["train"].text_ids[sample])
    rows = zip(table.columns[1].cells, table.columns[2].cells, strict=True)
    assert [str(token) for part, token in rows if str(part) in ("context", "text")] == tokens

"""Names that are made to hurt, through every command: no terminal obeys them, no markup is read, nothing is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from msekit.cli.main import app
from msekit.errors import MsekitError, shown

LABELS = ("[/]", "[red]x[/red]", "a|b", "<script>alert(1)</script>")
ESCAPES = ("\x1b[2J", "\x1b]52;c;ZXZpbA==\x07", "\x9b31m", "\u202egnp", "\x00", "\u2028", "\r")
IN_NAMES = tuple(escape for escape in ESCAPES if escape != "\x00")  # which no file can be called
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_set(folder: Path, labels: tuple[str, ...] = LABELS) -> Path:
    """A set whose labels, ids, texts and speakers are hostile."""
    folder.mkdir()
    drawn = np.random.default_rng(0)
    rows = [
        {
            "id": f"c{number}{IN_NAMES[number % len(IN_NAMES)]}[/]|<b>",
            "text": f"well {number}{ESCAPES[number % len(ESCAPES)]}",
            "label": labels[number % len(labels)],
            "split": ("train", "train", "valid", "test")[number // 7 % 4],
            "speaker": "[/bold]\x1b[1m",
            "audio": drawn.normal(size=(3, 4)).round(3).tolist(),
        }
        for number in range(56)
    ]
    rows.append(rows[0] | {"id": "\x1b[8mhidden", "text": "hm", "audio": [[float("nan")] * 4]})
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    description = {"name": "evil", "task": "erc", "layout": "folder", "labels": list(labels)}
    (folder / "evil.yaml").write_text(yaml.safe_dump(description, allow_unicode=True), encoding="utf-8")
    return folder / "evil.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    folder = tmp_path_factory.mktemp("evil")
    description = write_set(folder / "data")
    options = ["--epochs", "1", "--set", "evaluation.bootstrap=20", "--seeds", "1"]
    command = ["train", "--backbone", "tiny-llama", "--dataset", description, *options]
    return description, folder / "run", invoke(*command, "--output", folder / "run")


def seen(done: Result) -> str:
    """What a terminal gets."""
    assert done.exit_code == 0 or done.exception is not None, done.output
    assert done.exception is None or isinstance(done.exception, (MsekitError, SystemExit)), done.exception
    text = done.output + ("" if done.exception is None else str(done.exception))
    assert not OBEYED.search(text), ascii(OBEYED.search(text))
    return text


def test_every_command_shows_them_harmlessly(trained: tuple[Path, Path, Result], tmp_path: Path) -> None:
    description, run, done = trained
    assert done.exit_code == 0, done.exception
    seen(done)
    files = {"lines.jsonl": '{"id": "\\u001b[31mx", "text": "hi\\u009b1m", "\\u001b[5mkey": 1}\n'}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    lines = ["predict", run, "--input", tmp_path / "lines.jsonl"]
    shows = {
        "verify": ["data", "verify", description],
        "info": ["data", "info", description],
        "info json": ["data", "info", description, "--format", "json"],
        "dry run": ["train", "--backbone", "tiny-llama", "--dataset", description, "--dry-run"],
        "evaluate": ["evaluate", run],
        "evaluate json": ["evaluate", run, "--format", "json"],
        "predict": ["predict", run, "--text", "hi"],
        "predict json": ["predict", run, "--text", "hi", "--format", "json"],
        "predict lines": lines,
        "report": ["report", run],
        "report markdown": ["report", run, "--format", "markdown"],
        "report json": ["report", run, "--format", "json"],
        "compare": ["compare", run, run],
        "unknown label": ["data", "verify", "own", "--source", description.parent, "--labels", "a\x1b[1m,b"],
        "unknown run": ["evaluate", tmp_path / "no\x1b[1mrun"],
        "unknown set": ["data", "info", "no\x1b[1mset"],
    }
    texts = {name: seen(invoke(*arguments)) for name, arguments in shows.items()}
    assert all(label in texts["predict"] for label in LABELS), "markup is shown, not read"
    assert "\\u001b[31mx" in texts["predict lines"]
    assert set(json.loads(invoke(*shows["predict json"]).stdout)["scores"]) == set(LABELS)


def test_what_is_shared_holds_no_tags(trained: tuple[Path, Path, Result], tmp_path: Path) -> None:
    _, run, _ = trained
    assert invoke("export", run, tmp_path / "out").exit_code == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    outside = re.sub(r"`[^`]*`", "", card.partition("\n---\n")[2])
    assert "<script>" not in outside
    assert "&lt;script>" in outside
    rows = [line for line in card.splitlines() if line.startswith("| prompt |")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 3, "a bar in a label ends no cell"
    assert invoke("report", run, "--format", "html", "--output", tmp_path / "page.html").exit_code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert str(run) not in page, "no folder of this machine"


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_label_that_steers_a_terminal_is_refused(tmp_path: Path, escape: str) -> None:
    description = write_set(tmp_path / "data", (f"calm{escape}", "glad"))
    done = invoke("train", "--backbone", "tiny-llama", "--dataset", description, "--output", tmp_path / "run")
    assert "control character" in seen(done)
    assert not (tmp_path / "run").exists()


def test_control_characters_are_spelt_out() -> None:
    assert shown("a\x1b[1m\u202eb\nc\td\ud800") == "a\\u001b[1m\\u202eb\\u000ac\\u0009d\\ud800"
    assert shown("a\nb\x07", "\n") == "a\nb\\u0007"
    assert shown("é 好 👩 […]") == "é 好 👩 […]"
    assert "\x1b" not in str(MsekitError("a\x1bb", where=Path("c\x1bd"), fix="e\x1bf"))

"""YAML files: what is given twice is refused, whoever reads the file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.catalogue import read_spec, resolve_dataset
from msekit.errors import MsekitError
from msekit.yaml_file import read_mapping


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: [a, b]\nname: x\nlabels: [b, a]\n", "'labels' twice, in line 1 and in line 3"),
        ("optim:\n  lr: 1\n  lr: 2\n", "'lr' twice, in line 2 and in line 3"),
        ("1: a\n'1': b\n", "'1' twice, in line 1 and in line 2"),
        ("aliases: {x: a, x: b}\n", "'x' twice, in line 1 and in line 1"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_both_places(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(MsekitError, match=message):
        read_mapping(tmp_path / "x.yaml", "run file")


def test_what_is_merged_in_may_be_given_anew(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("\ufeffbase: &base {a: 1, b: 2}\nown: {<<: *base, b: 3}\n", encoding="utf-8")
    assert read_mapping(tmp_path / "x.yaml", "run file")["own"] == {"a": 1, "b": 3}


def test_so_may_what_that_merges_in(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\nd: {<<: *b, x: 4}\n"
    for lines in (text, "\n".join(["all:", *(f"  {line}" for line in text.splitlines())])):
        (tmp_path / "x.yaml").write_text(lines)
        read = read_mapping(tmp_path / "x.yaml", "run file")
        read = read.get("all", read)
        assert read == {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}, "c": {"x": 2, "y": 3}, "d": {"x": 4, "y": 1}}


def test_a_tab_has_a_name_in_a_description_too(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\ntask: erc\nlayout: csv\nlabels: [a, b]\ndelimiter: tab\n")
    assert read_spec(tmp_path / "x.yaml").delimiter == "\t"


def test_the_home_folder_is_meant_wherever_a_source_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "samples.jsonl").touch()
    assert resolve_dataset("own", Path("~"), {"labels": ("a", "b")}).layout == "folder"
    (tmp_path / "x.yaml").write_text("name: x\ntask: erc\nlayout: csv\nlabels: [a, b]\nsource: ~nobody-here/x\n")
    for ask in (
        lambda: read_spec(tmp_path / "x.yaml"),
        lambda: resolve_dataset("own", Path("~nobody-here/x"), {"labels": ("a", "b")}),
        lambda: resolve_dataset("~nobody-here/x.yaml"),
    ):
        with pytest.raises(MsekitError, match=r"no home folder.*~nobody-here"):
            ask()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("[0, 1]", r'labels\.0 is the number 0 .*quotes: "0"'),
        ("[yes, no]", r"labels\.0 is true as YAML reads it.*quotes"),
        ("[joy, 2.5]", r'labels\.1 is the number 2\.5 .*quotes: "2\.5"'),
    ],
)
def test_names_without_quotes_are_shown_as_yaml_reads_them(tmp_path: Path, labels: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(f"name: x\ntask: erc\nlayout: csv\nlabels: {labels}\n")
    with pytest.raises(MsekitError, match=message):
        read_spec(tmp_path / "x.yaml")


def test_another_encoding_is_told_to_be_saved_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes("labels: [高兴, 愤怒]".encode("gb18030"))
    with pytest.raises(MsekitError, match="Save it as UTF-8"):
        read_spec(tmp_path / "x.yaml")


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{number}: &a{number} [{','.join([f'*a{number - 1}'] * 8)}]\n" for number in range(1, 12)
)
DEEP = "a: " + "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100,000 values"),
        (DEEP, "more than 64 levels"),
        ("".join(f"{' ' * level}a:\n" for level in range(300)), "more than 64 levels"),
        ("a: &a [*a]\n", "stands for itself"),
        ("a: &a {b: *a}\n", "stands for itself"),
        ("a: &a {<<: *a}\n", "stands for itself"),
        (f"a: {'9' * 5000}\n", "cannot be read"),
        (f"a: {'9' * 400}\n", "beyond any float"),
        (f"a: 0x{'f' * 5000}\n", "beyond any float"),
        (f"0x{'f' * 600}: a\n", "beyond any float"),
        ("a: 2020-99-99\n", "cannot be read"),
        ('a: "\\ud800"\n', "surrogate"),
        ("a: !!python/object/apply:os.system [id]\n", "cannot be read"),
        ("a: " + "x" * (1 << 20), "larger than 1 MB"),
    ],
)
def test_no_file_grows_and_none_is_followed_without_end(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(MsekitError, match=message) as refused:
        read_mapping(path, "run file")
    assert len(str(refused.value)) < 2000
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", [BOMB, DEEP])
def test_every_yaml_is_read_so(tmp_path: Path, text: str) -> None:
    """Run files, descriptions, profiles, grids and `--set` alike."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    value = text.partition(": ")[2]
    train = ["train", "--backbone", "tiny-llama", "--output", str(tmp_path / "run"), "--dry-run"]
    synthetic = [*train, "--dataset", "synthetic-erc"]
    for arguments in (
        [*synthetic, "--config", str(path)],
        [*train, "--dataset", str(path)],
        [*synthetic, "--profile", str(path)],
        [*synthetic, "--set", f"optim.lr={value}"],
        ["sweep", str(path)],
    ):
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, MsekitError), (arguments[-2], done.exception)
        assert len(str(done.exception)) < 2000


def test_a_value_of_the_wrong_kind_is_shown_in_a_line(tmp_path: Path) -> None:
    value = "[" + ", ".join(["[1, 2, 3]"] * 9000) + "]"
    done = CliRunner().invoke(
        app, ["train", "--backbone", "tiny-llama", "--dataset", "synthetic-erc", "--set", f"optim.lr={value}"]
    )
    assert isinstance(done.exception, MsekitError)
    assert "optim.lr" in str(done.exception)
    assert len(str(done.exception)) < 300


def test_anchors_of_moderate_size_are_used(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a [1, 2]\nb: [*a, *a]\n")
    assert read_mapping(tmp_path / "x.yaml", "run file") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}

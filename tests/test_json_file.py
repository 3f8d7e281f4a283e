"""JSON from files and clients: bounded in size, depth and numbers, whoever reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msekit import json_file
from msekit.errors import MsekitError
from msekit.json_file import MOST_DEPTH, parse_json, read_json, read_json_lines


@pytest.mark.parametrize("depth", [MOST_DEPTH + 1, 900, 100_000])
@pytest.mark.parametrize("kind", ["[]", "{}"])
def test_what_is_nested_too_deeply_is_refused(depth: int, kind: str) -> None:
    opening, closing = ("[", "]") if kind == "[]" else ('{"a":', "}")
    text = opening * depth + "1" + closing * depth
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json(text)


def test_what_is_ours_is_read() -> None:
    deep = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert parse_json(deep) == json.loads(deep)
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, null, "\\u00e9"]}') == {"a": [1, 2.5, None, "é"]}
    assert parse_json('{"a": 1, "a": 2}', of_another_program=True) == {"a": 2}
    assert parse_json(f"[{10**299}]") == [10**299]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ("[" + "9" * 301 + "]", "301 digits"),
        ("[" + "9" * 5000 + "]", "5000 digits"),
        ('["\\ud800"]', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        (b'["\xff"]', "it is not text in utf-8 at byte 2"),
        ("[1", "it is not JSON, see line 1, column 3"),
        ("", "it is not JSON, see line 1, column 1"),
    ],
)
def test_what_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(MsekitError, match="the report is missing"):
        read_json(path, "report")
    path.write_text("[1, 2, 3]")
    assert read_json(path) == [1, 2, 3]
    monkeypatch.setattr(json_file, "LARGEST", 8)
    with pytest.raises(MsekitError, match="larger than"):
        read_json(path)
    with pytest.raises(MsekitError, match="cannot be read"):
        read_json(tmp_path)


def test_lines_end_where_files_say_so(tmp_path: Path) -> None:
    """A text may hold what Python, but not JSON, takes for a line's end."""
    path = tmp_path / "a.jsonl"
    lines = [{"id": "one\u2028two\x85\x0b"}, {"id": "b"}]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    assert read_json_lines(path) == lines
    path.write_text("")
    assert read_json_lines(path) == []
    path.write_text('{"a": 1}\n[]\n')
    with pytest.raises(MsekitError, match="line 2 is no object"):
        read_json_lines(path)


def test_a_file_of_many_lines_may_be_larger_than_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "LARGEST", 64)
    path = tmp_path / "lines.jsonl"
    path.write_text('{"id": "a"}\n' * 40)
    assert len(json_file.read_json_lines(path)) == 40
    path.write_text('{"id": "' + "a" * 64 + '"}\n')
    with pytest.raises(MsekitError, match="a line is larger than"):
        json_file.read_json_lines(path)

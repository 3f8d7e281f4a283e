"""What must outlast a power cut is on the disk before its name is; what was changed is told of."""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path

import pytest
import torch

from msekit.errors import MsekitError
from msekit.runs.files import check_digest, check_text, digest_of, opened, sealed, sealed_text, write_json, write_text
from msekit.runs.tensors import write_tensors


def test_content_is_on_the_disk_before_the_name_and_the_name_before_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(file: int) -> None:
        done.append(("on disk", Path(os.readlink(f"/proc/self/fd/{file}")).name))
        fsync(file)

    def replaced(source: Path, target: Path) -> None:
        done.append(("named", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    writers = {
        "a.txt": lambda path: write_text(path, "a"),
        "b.json": lambda path: write_json(path, {"b": 1}),
        "c.safetensors": lambda path: write_tensors(path, {"c": torch.ones(2)}),
    }
    for name, write in writers.items():
        done.clear()
        write(tmp_path / name)
        assert [kind for kind, _ in done] == ["on disk", "named", "on disk"], name
        assert done[0][1].startswith(f".{name}.")
        assert done[1:] == [("named", name), ("on disk", tmp_path.name)]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a", "old")

    def full(_: int) -> None:
        raise OSError(28, "the disk is full on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MsekitError, match="the disk is full"):
        write_text(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


DOCUMENT = {"labels": ["a", "好"], "values": {"b": 0.1, "c": None, "d": [1, True]}, "text": "x"}


def test_every_flipped_bit_of_a_document_is_told_or_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "msekit")
    whole = json.dumps(sealed(DOCUMENT)).encode()
    assert opened(json.loads(whole), tmp_path) == DOCUMENT
    assert not caplog.records
    for bit in range(8 * len(whole)):
        caplog.clear()
        try:
            read = json.loads(whole[: bit // 8] + bytes([whole[bit // 8] ^ (1 << bit % 8)]) + whole[bit // 8 + 1 :])
        except ValueError:  # no JSON or no UTF-8
            continue
        content = opened(read, tmp_path)
        keyless = "checksum" not in read  # its own name: the schema refuses a key that it does not know
        assert content == DOCUMENT or caplog.records or keyless, bit


def test_so_is_every_flipped_bit_of_the_settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "msekit")
    text = "optim:\n  lr: 0.002\nseed: 3\n"
    whole = sealed_text(text).encode()
    check_text(whole, tmp_path)
    check_text(text.encode(), tmp_path)  # of an older msekit
    assert not caplog.records
    for bit in range(8 * len(text)):
        caplog.clear()
        check_text(whole[: bit // 8] + bytes([whole[bit // 8] ^ (1 << bit % 8)]) + whole[bit // 8 + 1 :], tmp_path)
        assert "is not as msekit wrote it" in caplog.text, bit


def test_a_file_of_another_digest_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "msekit")
    check_digest(b"a", digest_of(b"a"), tmp_path)
    check_digest(b"a", None, tmp_path)
    assert not caplog.records
    check_digest(b"b", digest_of(b"a"), tmp_path)
    assert "damaged, or was changed by hand" in caplog.text


def test_what_a_killed_writer_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    host = socket.gethostname()
    for owner in (f"{host}.4194305", f"{host}.{os.getppid()}", "elsewhere.4194305"):
        (tmp_path / f".a.txt.{owner}.partial").write_text("half")
    write_text(tmp_path / "a.txt", "a")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.txt", f".a.txt.{host}.{os.getppid()}.partial", ".a.txt.elsewhere.4194305.partial"}

"""A mirror's other file under a known set's name is named, in `verify` and in training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from layouts import write
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.cache import known_files
from msekit.data.cache.cache import prepare
from msekit.data.cache.known_files import KNOWN
from msekit.data.catalogue import DATASETS, DatasetSpec


@dataclass
class Mosi:
    spec: DatasetSpec
    file: Path

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def said(self, root: Path) -> list[str]:
        return [line for line in prepare(self.spec, root=root).info.warnings if "MMSA" in line]


@pytest.fixture
def mosi(tmp_path: Path) -> Mosi:
    spec = DATASETS["mosi"].model_copy(update={"source": tmp_path / "mosi"})
    (tmp_path / "mosi").mkdir()
    write(tmp_path / "mosi", spec)
    return Mosi(spec, tmp_path / "mosi" / "unaligned_50.pkl")


def test_another_file_is_told_whenever_its_cache_is_opened(mosi: Mosi, tmp_path: Path):
    expected = [
        "unaligned_50.pkl is not MOSI/Processed/unaligned_50.pkl as MMSA publishes it (sha256 78e0f8b5ef8f…): its "
        f"sha256 begins with {mosi.digest[:12]}; numbers on it are not those of papers on that file"
    ]
    assert mosi.said(tmp_path / "root") == expected
    assert mosi.said(tmp_path / "root") == expected


def test_verify_tells_it(mosi: Mosi, own_cache: Path):
    arguments = ["data", "verify", "mosi", "--source", str(mosi.file.parent), "--format", "json"]
    done = CliRunner().invoke(app, arguments)
    assert any("as MMSA publishes it" in finding["what"] for finding in json.loads(done.stdout)["findings"])


def test_the_known_file_is_not_remarked_upon(mosi: Mosi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known_files, "KNOWN", {mosi.digest: ("mosi", "MOSI/Processed/unaligned_50.pkl")})
    assert mosi.said(tmp_path / "root") == []


def test_a_known_file_of_another_form_is_called_by_its_name(mosi: Mosi, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(known_files.KNOWN, mosi.digest, ("", "MOSI/Processed/aligned_50.pkl"))
    (said,) = mosi.said(tmp_path / "root")
    assert "it is MOSI/Processed/aligned_50.pkl" in said


def test_of_a_set_that_is_not_known_nothing_is_said(mosi: Mosi, tmp_path: Path):
    mosi.spec = mosi.spec.model_copy(update={"name": "mine"})
    assert mosi.said(tmp_path / "root") == []


def test_every_known_checksum_is_one_and_is_of_the_catalogue():
    assert all(len(digest) == 64 and int(digest, 16) for digest in KNOWN)
    for name, place in KNOWN.values():
        assert not name or place.endswith(f"/{DATASETS[name].files}")

"""Any damaged file is refused, or told of where its format has a checksum: no traceback, no signal, no hang."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from attacked import readers
from mutants import FAILED, Reader, try_mutants

from tests.inference.conftest import erc_run

__all__ = ["erc_run"]
MUTANTS, OF_THE_COSTLY = 30, 6
"""Of each file; `python -m benchmarks.damage.mutants` tries more. The costly ones load an LLM or draw a page."""
COSTLY = ("backbone", "metrics.jsonl", "robustness.json", "clip.wav")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def all_readers(erc_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return {reader.name: reader for reader in readers(tmp_path_factory.mktemp("attacked"), erc_run)}


NAMES = """adapter.safetensors, adapter header, adapter.json, state.safetensors, state header, config.yaml,
config.yaml in a report, report.json, metrics.jsonl, robustness.json, predictions, lines to predict,
backbone config.json, backbone model.safetensors, backbone tokenizer.json, backbone tokenizer_config.json,
backbone generation_config.json, samples; jsonl, samples; parquet, samples; file, samples; stream, CSV, cache,
description, profile, grid, features.safetensors, features.npy, features.npz, features.packed.npz, clip.wav,
checkpoint.pth, extract.jsonl, published.pkl, page"""


@pytest.mark.parametrize("name", [name.replace(";", ",") for name in NAMES.replace("\n", " ").split(", ")])
def test_any_damaged_file_is_refused(all_readers: dict[str, Reader], name: str) -> None:
    count = OF_THE_COSTLY if name.startswith(COSTLY) else MUTANTS
    tried = try_mutants(all_readers[name], range(count), seed=1)
    assert [one.number for one in tried] == list(range(count))
    assert not [one for one in tried if one.outcome in FAILED]
    assert {one.outcome for one in tried} <= {"refused", "read", "told", "lawful"}


def test_what_is_whole_is_read(all_readers: dict[str, Reader]) -> None:
    for reader in all_readers.values():
        (one,) = try_mutants(replace(reader, make=lambda whole, _: whole), [0], seed=1)
        assert one.outcome == "read", one


def test_every_reader_is_tried(all_readers: dict[str, Reader]) -> None:
    assert list(all_readers) == [name.replace(";", ",") for name in NAMES.replace("\n", " ").split(", ")]

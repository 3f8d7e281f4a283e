"""One bit of what was trained is noticed: a file of tensors is read as it was written, or refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from msekit.errors import MsekitError
from msekit.runs.progress import Progress
from msekit.runs.tensors import read_tensors, write_tensors
from msekit.training.checkpoint import RunKey, State, load_state, save_state

TENSORS = {
    "bias": torch.arange(3.0),
    "scale": torch.tensor(2.5),
    "weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.ones(5, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "random": torch.arange(6, dtype=torch.uint8),
}
KEY = RunKey("key", frozenset({"key"}))


def same(tensors: dict, others: dict) -> bool:
    return tensors.keys() == others.keys() and all(
        tensors[name].dtype == others[name].dtype and torch.equal(tensors[name], others[name]) for name in tensors
    )


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]


def test_what_is_written_is_read(tmp_path: Path):
    write_tensors(tmp_path / "a", TENSORS, {"progress": "{}"})
    tensors, header = read_tensors(tmp_path / "a")
    assert same(tensors, TENSORS)
    assert header == {"progress": "{}"}
    write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), {"progress": "{}"})
    with safe_open(tmp_path / "a", "pt") as a, safe_open(tmp_path / "b", "pt") as b:
        assert a.metadata() == b.metadata(), "the order of names does not count"
    save_file(TENSORS, tmp_path / "old")  # as the first runs are, without a checksum
    assert same(read_tensors(tmp_path / "old")[0], TENSORS)


def test_every_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path):
    path = tmp_path / "adapter.safetensors"
    write_tensors(path, TENSORS, {"progress": '{"epoch": 1}', "run_key": "key"})
    whole = path.read_bytes()
    refused = 0
    for bit in range(8 * len(whole)):
        path.write_bytes(flipped(whole, bit))
        try:
            tensors, header = read_tensors(path)
        except MsekitError:
            refused += 1
            continue
        assert same(tensors, TENSORS), bit
        lost = header.keys() - {"progress", "run_key"}
        assert lost or header == {"progress": '{"epoch": 1}', "run_key": "key"}, bit
        assert len(lost) <= 1, "the name of the checksum alone"
    assert refused > 0.9 * 8 * len(whole)


def test_tensors_that_changed_places_are_refused(tmp_path: Path):
    write_tensors(tmp_path / "a", {"first": torch.zeros(4), "other": torch.ones(4)})
    with safe_open(tmp_path / "a", "pt") as file:
        header = file.metadata()
    tensors = load_file(tmp_path / "a")
    save_file({"first": tensors["other"], "other": tensors["first"]}, tmp_path / "a", header)
    with pytest.raises(MsekitError, match="checksum"):
        read_tensors(tmp_path / "a")


def state_in(folder: Path) -> nn.Module:
    adapter = nn.Linear(3, 2)
    moments = {"weight.exp_avg": torch.ones(2, 3)}
    best = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    save_state(folder, State(adapter, moments, best, Progress(step=7), "key", {}, "float32"))
    return adapter


def test_a_state_with_a_flipped_bit_is_not_resumed(tmp_path: Path):
    adapter = state_in(tmp_path)
    path = tmp_path / "state" / "state.safetensors"
    whole, rng = path.read_bytes(), random.Random(0)
    assert load_state(tmp_path, adapter, KEY)[0].step == 7
    start = int.from_bytes(whole[:8], "little") + 8
    for _ in range(40):
        path.write_bytes(flipped(whole, 8 * rng.randrange(start, len(whole))))
        with pytest.raises(MsekitError, match="damaged"):
            load_state(tmp_path, adapter, KEY)


@pytest.mark.parametrize(
    ("tensors", "progress"),
    [
        ({"zzz": torch.zeros(1)}, "{}"),
        ({"optimx.a": torch.zeros(1)}, "{}"),
        ({"random.torch": torch.zeros(3)}, "{}"),
        ({}, '{"epoch": 1, "zzz": 2}'),
        ({}, "[" * 10_000),
        ({}, None),
    ],
)
def test_a_state_of_other_names_is_damaged(tmp_path: Path, tensors: dict, progress: str | None):
    """As files without a checksum can be."""
    adapter = state_in(tmp_path)
    path = tmp_path / "state" / "state.safetensors"
    header = {"run_key": "key"} | ({} if progress is None else {"progress": progress})
    save_file(load_file(path) | tensors, path, header)
    with pytest.raises(MsekitError, match="damaged"):
        load_state(tmp_path, adapter, KEY)

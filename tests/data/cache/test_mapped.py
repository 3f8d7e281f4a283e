"""A cache in use: nothing of ours writes into a mapped file, and one that another program cuts is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from msekit.data.cache.cache import open_cache, prepare
from msekit.data.cache.mapped import MappedFile
from msekit.data.cache.states import PART, StatesFolder
from msekit.data.catalogue import DATASETS, SPLITS
from msekit.errors import MsekitError

READS_ON = """
import os, sys
from pathlib import Path
from msekit.data.cache.cache import open_cache
from msekit.errors import MsekitError
cache = open_cache(Path(sys.argv[1]))
table = cache.split("train")
first = float(table.audio(0).sum())
os.truncate(Path(sys.argv[1]) / "train.arrow", 4096)
try:
    for index in range(len(table)):
        table.audio(index).sum()
except MsekitError as error:
    print(error)
"""


def test_a_cut_file_is_one_line_and_no_signal(tmp_path: Path):
    cache = prepare(DATASETS["synthetic-erc"], root=tmp_path)
    done = subprocess.run([sys.executable, "-c", READS_ON, str(cache.path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cut short while it was in use" in done.stdout
    assert "--resume" in done.stdout


def test_what_is_built_anew_leaves_what_is_mapped(tmp_path: Path):
    """A damaged cache is replaced by a rename: whoever has mapped the former files reads on."""
    cache = prepare(DATASETS["synthetic-erc"], root=tmp_path)
    table, files = cache.split("train"), {split: cache.path / f"{split}.arrow" for split in SPLITS}
    before, numbers = table.audio(0).copy(), {split: file.stat().st_ino for split, file in files.items()}
    with files["test"].open("r+b") as file:
        file.seek(100)
        file.write(b"damaged")
    again = prepare(DATASETS["synthetic-erc"], root=tmp_path)
    assert again.path == cache.path
    assert all(file.stat().st_ino != numbers[split] for split, file in files.items())
    np.testing.assert_array_equal(table.audio(0), before)
    open_cache(cache.path)
    for file in files.values():
        file.unlink()
    np.testing.assert_array_equal(table.audio(0), before)


def test_states_that_are_cut(tmp_path: Path):
    folder = StatesFolder(tmp_path, "key", 3, exact=True)
    folder.begin()
    folder.write(0, np.ones((3, 1, 2, 4), np.float32))
    folder.finish("tiny-llama", "fp32", (0,))
    stored = folder.open()
    assert stored is not None
    assert PART > 2
    assert stored.rows(np.array([2])).shape == (1, 1, 2, 4)
    (part,) = folder.path.glob("part-*")
    os.truncate(part, 64)
    with pytest.raises(MsekitError, match="cut short"):
        stored.rows(np.array([2]))


def test_a_file_that_grows_or_goes_is_read_on(tmp_path: Path):
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    mapped = MappedFile(file)
    with file.open("ab") as stream:
        stream.write(b"d")
    mapped.refuse_cut()
    os.truncate(file, 2)
    with pytest.raises(MsekitError, match="cut short"):
        mapped.refuse_cut()
    with file.open("rb"):  # as a mapping holds it: its number is given to no other file
        file.unlink()
        mapped.refuse_cut()
        file.write_bytes(b"")
        mapped.refuse_cut()

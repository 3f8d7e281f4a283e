"""A damaged Arrow file of rows is refused: offsets are not followed out of the file, which would end the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

_READ_MUTANTS = """
import sys
from pathlib import Path
import numpy as np
from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.own_tables import read_table
from msekit.errors import MsekitError

folder = Path(sys.argv[1])
whole, drawn, refused = (folder / "whole.arrow").read_bytes(), np.random.default_rng(0), 0
for _ in range(400):
    damaged = bytearray(whole)
    for place in drawn.integers(len(whole), size=4):
        damaged[place] ^= 1 << int(drawn.integers(8))
    (folder / "samples.arrow").write_bytes(damaged)
    try:
        list(read_table(folder / "samples.arrow", DatasetSpec(name="x", task="msa", layout="folder", range=(-1, 1))))
    except MsekitError:
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_no_damaged_file_ends_the_process(tmp_path: Path, kind: str) -> None:
    rows = {
        "text": [f"some words {number}" for number in range(12)],
        "label": [0.5] * 12,
        "audio": [[[float(number)] * 3] * 4 for number in range(12)],
    }
    table = pa.table(rows)
    path = tmp_path / "whole.arrow"
    with pa.OSFile(str(path), "wb") as out, getattr(pa.ipc, f"new_{kind}")(out, table.schema) as to:
        to.write_table(table)
    command = [sys.executable, "-c", _READ_MUTANTS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 50

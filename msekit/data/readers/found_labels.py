"""What the labels of one's own files are, for whoever has not said it yet: advice, never taken by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from msekit.data.catalogue import DatasetSpec, layout_of
from msekit.data.readers.own_folder import OwnSet
from msekit.data.readers.own_tables import read_table
from msekit.data.readers.rows import number_of
from msekit.errors import MsekitError

_ROWS = 5000  # looked at in each table
_MOST_CLASSES = 30


def found_labels(source: Path, options: Mapping[str, Any]) -> str:
    """Advice on `--labels` or `--range`, with what the files hold if they can be read without knowing it.

    Args:
        source: Where the files lie.
        options: What else is said of them: `encoding`, `delimiter`, `columns`.
    """
    general = "Say what their labels are: --labels joy,anger,… or --range -3,3"
    layout = layout_of(source, "msa")
    if layout not in ("folder", "csv"):
        return general
    dialect = {key: options[key] for key in ("encoding", "delimiter", "columns") if key in options}
    try:
        spec = DatasetSpec(name="own", task="msa", layout=layout, range=(-1, 1), source=source, **dialect)
        tables = OwnSet(spec).tables
        samples = [sample for table in tables for sample in islice(read_table(table, spec), _ROWS)]
    except (MsekitError, ValueError):
        return general
    values = list(dict.fromkeys(str(label) for sample in samples if (label := sample.fields.get("label")) is not None))
    numbers = [number for value in values if (number := number_of(value)) is not None and math.isfinite(number)]
    if numbers and len(numbers) == len(values):
        span = f"--range {math.floor(min(numbers))},{math.ceil(max(numbers))}"
        whole = all(number == int(number) for number in numbers) and len(numbers) <= _MOST_CLASSES
        classes = ",".join(f"{number:g}" for number in sorted(set(numbers)))
        choice = f"{span}, or if they are classes --labels {classes}" if whole else span
        return f"The labels found are numbers from {min(numbers):g} to {max(numbers):g}: give {choice}"
    if 1 < len(values) <= _MOST_CLASSES:
        return f"The labels found are {', '.join(values)}: give --labels {','.join(values)} (in the order of their numbers)"
    return general

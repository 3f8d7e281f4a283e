"""What the labels of one's own files are, for whoever has not said it yet: advice, never taken by itself."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from msekit.data.catalogue import DATASETS, DatasetSpec, resolve_dataset
from msekit.data.find_files import DATASET, as_options, layout_of
from msekit.data.readers.own_folder import OwnSet
from msekit.data.readers.own_tables import read_table
from msekit.data.readers.rows import number_of
from msekit.errors import MsekitError, UnsaidLabelsError, nearest

_ROWS = 5000  # looked at in each table
_MOST_CLASSES = 30


def find_set(name: str, source: Path | None, options: Mapping[str, Any], asks: str = DATASET) -> DatasetSpec:
    """`resolve_dataset`, which where labels are not said offers those that the files hold.

    Raises:
        MsekitError: What `resolve_dataset` refuses.
    """
    try:
        return resolve_dataset(name, source, options, asks)
    except UnsaidLabelsError as error:
        found = _found_labels(Path(source or str(error.where)).expanduser(), options)
        if source is None:  # files were given where a name is asked for
            given = as_options(Path(name).expanduser(), Path(str(error.where)), asks, found[1]) if found else ""
            raise MsekitError(
                error.what, fix=f"Say what it is: {f'{given}. {found[0]}.' if found else error.fix}"
            ) from None
        advice = found and f"{found[0]}: give {found[1]}"
        near = nearest(name, DATASETS)
        or_that = f". {near}" if near.startswith("Did") and not advice else ""  # files are there: they come first
        raise MsekitError(error.what, where=error.where, fix=f"{advice or error.fix}{or_that}") from None


def _found_labels(source: Path, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """What labels there are, and the option that says so; None where the files cannot be read without knowing them."""
    layout = layout_of(source, "msa")
    if layout not in ("folder", "csv"):
        return None
    dialect = {key: options[key] for key in ("encoding", "delimiter", "columns") if options.get(key)}
    try:
        spec = DatasetSpec(name="own", task="msa", layout=layout, range=(-1, 1), source=source, **dialect)
        tables = OwnSet(spec).tables
        samples = [sample for table in tables for sample in islice(read_table(table, spec), _ROWS)]
    except (MsekitError, ValueError):
        return None
    values = list(dict.fromkeys(str(label) for sample in samples if (label := sample.fields.get("label")) is not None))
    numbers = [number for value in values if (number := number_of(value)) is not None and math.isfinite(number)]
    if numbers and len(numbers) == len(values):
        span = f"--range {math.floor(min(numbers))},{math.ceil(max(numbers))}"
        whole = all(number == int(number) for number in numbers) and len(numbers) <= _MOST_CLASSES
        classes = ",".join(f"{number:g}" for number in sorted(set(numbers)))
        choice = f"{span} (or if they are classes --labels {classes})" if whole else span
        return f"The labels found are numbers from {min(numbers):g} to {max(numbers):g}", choice
    if 1 < len(values) <= _MOST_CLASSES:
        found = f"The labels found are {', '.join(values)}, to be given in the order of their numbers"
        return found, f"--labels {shlex.quote(','.join(values))}"
    return None

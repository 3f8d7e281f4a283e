"""Which files hold the rows of a data set of one's own."""

from __future__ import annotations

from pathlib import Path

from msekit.data.catalogue import SPLITS, DatasetSpec
from msekit.data.readers.own_tables import TABLES
from msekit.data.readers.set_apart import advice_on_empty
from msekit.errors import MsekitError

SAMPLE_FILES = ("samples.jsonl", "samples.parquet", "samples.arrow")
SPLIT_NAMES = {split: split for split in SPLITS} | dict.fromkeys(("val", "dev", "validation"), "valid")
"""What a table may call a split → its name."""


def find_samples(folder: Path) -> dict[str, Path]:
    """Split → the samples file of a folder.

    Raises:
        MsekitError: There is none, or there are two.
    """
    files = [folder / name for name in SAMPLE_FILES if (folder / name).is_file()]
    if not files:
        raise MsekitError("no samples file", where=folder, fix=f"Looked for {', '.join(SAMPLE_FILES)}")
    if len(files) > 1:
        raise MsekitError(f"there are both {files[0].name} and {files[1].name}", where=folder, fix="Keep one of them")
    return dict.fromkeys(SPLITS, files[0])


def find_csv(source: Path, spec: DatasetSpec) -> dict[str, Path]:
    """Split → its CSV: one of all splits, or one of each.

    Raises:
        MsekitError: A file is missing, or there are two of one split.
    """
    if source.is_file():
        return dict.fromkeys(SPLITS, source)
    in_file = {split: "train" if split == "valid" and spec.validation else split for split in SPLITS}
    sets = [{split: source / f"{name}{suffix}" for split, name in in_file.items()} for suffix in TABLES]
    whole = [files for files in sets if all(path.is_file() for path in files.values())]
    if len(whole) > 1:
        names = " and ".join(files["train"].name for files in whole)
        raise MsekitError(f"there are both {names}", where=source, fix="Keep one of them")
    if whole:
        if spec.validation:
            _refuse_valid(source)
        return whole[0]
    fix = "Give one CSV with a column 'split', or a folder of train, valid and test.csv"
    if any((source / f"train{suffix}").is_file() for suffix in TABLES):
        fix += f". {advice_on_empty(spec, 'valid')}"
    raise MsekitError("no such file", where=source, fix=fix)


def _refuse_valid(folder: Path) -> None:
    """Refuse a file of validation rows where `validation` is to make some."""
    for name in (name for name, split in SPLIT_NAMES.items() if split == "valid"):
        for path in (folder / f"{name}{suffix}" for suffix in TABLES):
            if path.is_file():
                fix = "Leave `validation` out (the file is to be called valid), or move the file away"
                raise MsekitError("there is a validation split already", where=path, fix=fix)

"""A baseline's run folder: what makes two runs of it the same, and what is refused before libraries load. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msekit.backbones.catalogue import canonical_name
from msekit.baselines.catalogue import BASELINES
from msekit.errors import MsekitError, nearest
from msekit.runs.files import ADAPTER, CONFIG
from msekit.runs.report import Report, read_report


def kind_of(
    name: str,
    dataset: str,
    seed: int,
    backbone: str | None,
    epochs: int,
    limit_train: int | None,
    context: int = 0,
    text_limit: int | None = None,
) -> dict[str, Any]:
    """What a baseline's run is, as its report says it.

    Raises:
        MsekitError: No such baseline.
    """
    if name not in BASELINES:
        raise MsekitError(f"unknown baseline '{name}'", fix=nearest(name, BASELINES.names))
    return {
        "adapter": name,
        "backbone": "none" if backbone is None else canonical_name(backbone),
        "dataset": dataset,
        "seed": seed,
        "epochs": epochs if BASELINES[name].network else None,
        "limit_train": limit_train,
        "context": context or None,
        "text_limit": text_limit,
    }


def folder_name(dataset: str, name: str, backbone: str | None, text_from: str, context: int = 0) -> str:
    """Where a baseline's seeds lie, among those of other runs: told by what it reads where that is not words."""
    read = "" if backbone is None else f"-{Path(backbone).name}"
    before = f"-context{context}" if context else ""
    return f"{dataset}-{name}{'-file' if text_from == 'file' else read}{before}"


def finished_baseline(output: Path, kind: dict[str, Any]) -> Report | None:
    """The report of a folder's finished run; None where it holds none.

    Raises:
        MsekitError: The run is of another kind, with what differs, or one of `msekit train`.
    """
    report = read_report(output)
    if report is None:
        if any((output / name).is_file() for name in (CONFIG, ADAPTER)):
            raise MsekitError("the folder holds a run of msekit train", where=output, fix="Choose another --output.")
        return None
    document = report.document()
    apart = [f"{key}: {document.get(key)} → {value}" for key, value in kind.items() if document.get(key) != value]
    if apart:
        raise MsekitError(
            f"the folder holds the finished run of another baseline ({', '.join(apart)})",
            where=output,
            fix="Choose another --output.",
        )
    return report

"""The bar beside a run: what a linear model on the same frozen LLM's hidden states gives on the same data.

`msekit baseline llm-linear` leaves a run folder like any other; where one lies in the folder that holds the reported
runs, `msekit report` shows it after them, and `msekit train` names its metrics at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msekit.errors import MsekitError
from msekit.runs.files import REPORT
from msekit.runs.report import Report, RunReport, read_report

BAR = "llm-linear"
SAME = ("dataset", "data_fingerprint", "backbone_fingerprint", "split", "limit_train", "context")
"""What a run and its bar must share."""


def bars(reports: Sequence[RunReport]) -> list[Path]:
    """Folders of finished `llm-linear` runs of the same backbone and data that lie beside the reported runs.

    Args:
        reports: What is reported.

    Returns:
        One folder for each bar; those that are reported already are left out.
    """
    wanted = {_key(run.report) for run in reports if run.report.adapter != BAR}
    wanted -= {_key(run.report) for run in reports if run.report.adapter == BAR}
    folders: dict[tuple[object, ...], Path] = {}
    for around in dict.fromkeys(_around(run.path.resolve()) for run in reports):
        for file in sorted(around.glob(f"*/seed-*/{REPORT}")):
            bar = _bar(file)
            if bar is not None and _key(bar) in wanted:
                folders.setdefault(_key(bar), file.parent)
    return list(folders.values())


def _key(report: Report) -> tuple[object, ...]:
    return tuple(getattr(report, name) or None for name in SAME)  # no context is 0 or none


def _around(seed: Path) -> Path:
    """The folder that holds runs, of one seed's: `runs` of `runs/NAME/seed-1111` and of `runs/NAME`."""
    return seed.parent.parent if seed.name.startswith("seed-") else seed.parent


def _bar(file: Path) -> Report | None:
    """The report of a bar; None for another run, and for one that cannot be read, which nobody asked for."""
    try:
        if f'"{BAR}"' not in file.read_text(encoding="utf-8"):
            return None
        report = read_report(file.parent)
    except (OSError, UnicodeDecodeError, MsekitError):
        return None
    return report if report is not None and report.adapter == BAR else None

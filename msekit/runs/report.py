"""`report.json`: what a finished run says of itself, and what makes runs comparable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from msekit.errors import MsekitError
from msekit.runs.folder import REPORT

if TYPE_CHECKING:
    pass
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from msekit.runs.folder import find_runs
from msekit.version import __version__

REQUIRED_KEYS = ("dataset", "backbone", "adapter", "recipe", "estimate", "split", "seed", "metrics")


GROUP_KEYS = (
    *("dataset", "backbone", "adapter", "recipe", "estimate", "split"),
    *("without", "limit_train", "quantization", "ablate", "layout", "context", "on_missing", "modality_dropout"),
    "options",
)
"""The second and third line's keys count where a report has them, and not its default there."""


DEFAULTS = {"quantization": "none", "layout": "paper", "on_missing": "zero"}


@dataclass(frozen=True)
class RunReport:
    """One finished run: its folder, the content of its report.json, and its resolved configuration if it is there."""

    path: Path
    values: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted key → value of config.yaml."""

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.values["seed"])

    @property
    def key(self) -> tuple[str, ...]:
        """What runs must share to be averaged, as text."""
        return tuple(json.dumps(_unusual(name, self.values.get(name))) for name in GROUP_KEYS)


def _unusual(name: str, value: Any) -> Any:
    """A key's value, None where it is empty or the default."""
    return None if value == DEFAULTS.get(name) else value or None


def collect(runs: Sequence[Path]) -> list[RunReport]:
    """Read the reports of run folders; a folder that is named twice counts once.

    Args:
        runs: A seed's folder or a folder that holds `seed-*` folders, each.

    Raises:
        MsekitError: A folder holds no finished run, or a report is unreadable or incomplete.
    """
    folders = {folder.resolve(): folder for path in runs for folder in find_runs(Path(path))[0]}
    return [_read(folder) for folder in folders.values()]


def _read(folder: Path) -> RunReport:
    """One folder's report, checked for the keys that are needed here."""
    file = folder / REPORT
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MsekitError(f"the report cannot be read: {error}", where=file) from error
    missing = [key for key in REQUIRED_KEYS if not isinstance(values, dict) or key not in values]
    if missing or not isinstance(values["metrics"], dict):
        raise MsekitError(
            f"the report has no '{missing[0] if missing else 'metrics'}'", where=file, fix="Evaluate the run again."
        )
    config = folder / "config.yaml"
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MsekitError(f"the run's configuration cannot be read: {error}", where=config) from error
    return RunReport(folder, values, flatten(settings))


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings → dotted keys."""
    if not isinstance(settings, dict):
        return {prefix: settings} if prefix else {}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def peak_memory(device: torch.device) -> int:
    """Largest memory in bytes: allocated on the GPU, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    found = {"msekit": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "accelerate", "bitsandbytes", "datasets", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

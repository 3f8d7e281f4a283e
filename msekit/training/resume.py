"""What a run folder holds already, for `--resume`: a finished run to reuse, or a state to go on from."""

from __future__ import annotations

from typing import Any

from msekit.backbones.precision import DTYPES
from msekit.data.cache.cache import fingerprint_of
from msekit.data.cache.split_table import CacheSettings
from msekit.data.download import downloaded
from msekit.distributed.accelerator import on_main
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.runs.config import read_config
from msekit.runs.description import read_spec_of, without_places
from msekit.runs.files import STATE
from msekit.runs.identity import settings_of
from msekit.runs.report import Report, read_report
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of


def has_state(config: RunConfig, accelerator: Any) -> bool:
    """Whether there is a state to resume from, as the main process sees it.

    Raises:
        MsekitError: This process does not see the main process's run folder.
    """
    there = on_main(accelerator, (config.output / STATE).is_file)
    if there and not (config.output / STATE).is_file():
        raise MsekitError(
            "this machine does not see the state to resume from",
            where=config.output,
            fix="Put the output on a file system that all machines share.",
        )
    return there


def finished_report(config: RunConfig, reporter: Reporter | None) -> dict[str, Any]:
    """The report of a finished run, which is reused.

    Raises:
        MsekitError: The run was made with other settings or on other data, or its files are damaged.
    """
    report = read_report(config.output)
    assert report is not None, "only a finished run is reused"
    same = settings_of(read_config(config.output)) == settings_of(config)
    if not same or config.model.dtype not in ("auto", *_names_of(report.dtype)):
        raise MsekitError(
            "the output folder holds a finished run with other settings",
            where=config.output,
            fix="Choose another --output.",
        )
    _refuse_other_data(config, report)
    if reporter:
        reporter.note(f"seed {config.seed} is finished and reused: {config.output}")
    return report.document()


def _names_of(dtype: str | None) -> list[str]:
    """What the settings call a precision that a report names."""
    return [name for name, kind in DTYPES.items() if str(kind) == f"torch.{dtype}"]


def _refuse_other_data(config: RunConfig, report: Report) -> None:
    """Compare a finished run's data with what is asked for now.

    Raises:
        MsekitError: They differ, or the data set's files are not where they are said to be.
    """
    spec = spec_of(config)
    if spec.source is None and spec.hub is not None:
        spec = spec.model_copy(update={"source": downloaded(spec)})
    there = spec.source is not None or spec.hub is None  # features that were deleted cannot be other ones
    same = not there or fingerprint_of(spec, CacheSettings(dtype=config.data.dtype)) == report.data_fingerprint
    if not same or without_places(spec) != without_places(read_spec_of(config.output)):
        raise MsekitError(
            f"the output folder holds a finished run on other data than {config.dataset} is now",
            where=config.output,
            fix="Choose another --output.",
        )

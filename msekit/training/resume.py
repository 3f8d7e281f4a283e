"""What a run folder holds already, for `--resume`: a finished run to reuse, or a state to go on from."""

from __future__ import annotations

from typing import Any

from msekit.data.cache.cache import fingerprint_of
from msekit.data.cache.split_table import CacheSettings
from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.data.download import downloaded
from msekit.distributed.accelerator import on_main
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.runs.description import WHERE_ITS_FILES_LIE, read_spec_of
from msekit.runs.folder import read_report
from msekit.runs.identity import settings_of
from msekit.settings.config import RunConfig
from msekit.settings.resolve import read_run_file, validated
from msekit.training.checkpoint import STATE_FILE


def has_state(config: RunConfig, accelerator: Any) -> bool:
    """Whether there is a state to resume from, as the main process sees it.

    Raises:
        MsekitError: This process does not see the main process's run folder.
    """
    there = on_main(accelerator, (config.output / STATE_FILE).is_file)
    if there and not (config.output / STATE_FILE).is_file():
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
    where = config.output / "config.yaml"
    finished = validated(read_run_file(where), where)
    if settings_of(finished) != settings_of(config):
        raise MsekitError(
            "the output folder holds a finished run with other settings",
            where=config.output,
            fix="Choose another --output.",
        )
    report = read_report(config.output)
    _refuse_other_data(config, report)
    if reporter:
        reporter.note(f"seed {config.seed} is finished and reused: {config.output}")
    return report


def _refuse_other_data(config: RunConfig, report: dict[str, Any]) -> None:
    """Compare a finished run's data with what is asked for now.

    Raises:
        MsekitError: They differ, or the data set's files are not where they are said to be.
    """
    spec = resolve_dataset(config.dataset, config.source, config.description.model_dump())
    if spec.source is None and spec.hub is not None:
        spec = spec.model_copy(update={"source": downloaded(spec)})
    there = spec.source is not None or spec.hub is None  # features that were deleted cannot be other ones
    same = not there or fingerprint_of(spec, CacheSettings(dtype=config.data.dtype)) == report.get("data_fingerprint")
    if not same or _described(spec) != _described(read_spec_of(config.output)):
        raise MsekitError(
            f"the output folder holds a finished run on other data than {config.dataset} is now",
            where=config.output,
            fix="Choose another --output.",
        )


def _described(spec: DatasetSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude=WHERE_ITS_FILES_LIE)

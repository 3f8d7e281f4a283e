"""A finished run's report, reused for `--resume` where it is the run that is asked for. No torch."""

from __future__ import annotations

from typing import Any

from msekit.data.cache.cache import fingerprint_of
from msekit.data.cache.split_table import CacheSettings
from msekit.data.download import downloaded
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.runs.config import read_config
from msekit.runs.description import read_spec_of, without_places
from msekit.runs.go_on import as_begun
from msekit.runs.identity import apart, in_words
from msekit.runs.report import Report, read_report
from msekit.settings.config import RunConfig
from msekit.settings.data_of import spec_of

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""torch's names, and what the settings call them."""


def finished_report(config: RunConfig, reporter: Reporter | None) -> dict[str, Any]:
    """The report of a finished run, which is reused.

    Raises:
        MsekitError: The run was made with other settings or on other data, or its files are damaged.
    """
    report = read_report(config.output)
    assert report is not None, "only a finished run is reused"
    saved = read_config(config.output)
    differences = apart(saved, as_begun(config, saved))
    held_in = precision_named(report.dtype)
    if config.model.dtype not in ("auto", held_in):
        differences.append(f"model.dtype: {held_in} → {config.model.dtype}")
    if differences:
        raise MsekitError(
            f"the output folder holds a finished run with other settings: {in_words(differences)}",
            where=config.output,
            fix="Choose another --output.",
        )
    _refuse_other_data(config, report)
    if reporter:
        reporter.note(f"seed {config.seed} is finished and reused: {config.output}")
    return report.document()


def precision_named(dtype: str | None) -> str:
    """What the settings call a precision that torch calls so."""
    return _PRECISIONS.get(str(dtype), str(dtype))


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

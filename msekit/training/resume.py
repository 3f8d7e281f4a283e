"""What a run folder holds already, for `--resume`: a finished run to reuse, or a state to go on from."""

from __future__ import annotations

from typing import Any

from msekit.config import RunConfig, read_run_file, validated
from msekit.errors import MsekitError
from msekit.reporter import Reporter
from msekit.training.checkpoint import STATE_FILE
from msekit.training.distributed import on_main
from msekit.training.identity import settings_of
from msekit.training.run_folder import read_report


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
        MsekitError: The run was made with other settings, or its files are damaged.
    """
    where = config.output / "config.yaml"
    finished = validated(read_run_file(where), where)
    if settings_of(finished) != settings_of(config):
        raise MsekitError(
            "the output folder holds a finished run with other settings",
            where=config.output,
            fix="Choose another --output.",
        )
    if reporter:
        reporter.note(f"seed {config.seed} is finished and reused: {config.output}")
    return read_report(config.output)

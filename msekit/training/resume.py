"""Whether a run's folder holds a state to go on from, for `--resume`, and whether it is of the same run."""

from __future__ import annotations

from typing import Any

from msekit.distributed.accelerator import on_main
from msekit.errors import MsekitError
from msekit.runs.config import read_config
from msekit.runs.description import read_description
from msekit.runs.files import CONFIG, DESCRIPTION, STATE
from msekit.runs.finished import precision_named
from msekit.runs.identity import apart, in_words
from msekit.settings.config import RunConfig
from msekit.training.build import Parts
from msekit.training.checkpoint import saved_dtype


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


def refuse_other_run(config: RunConfig, parts: Parts) -> None:
    """Compare what a stopped run's folder says of it with what is asked for now.

    Raises:
        MsekitError: The settings, the data, the LLM or the prompt differ, with what differs.
    """
    differences = []
    if (config.output / CONFIG).is_file():
        differences = apart(read_config(config.output), config)
    saved, held = saved_dtype(config.output), str(parts.backbone.model.dtype).removeprefix("torch.")
    if saved not in (None, held):
        differences.append(f"model.dtype: {precision_named(saved)} → {precision_named(held)}")
    if differences:
        raise MsekitError(
            f"the stopped run has other settings: {in_words(differences)}",
            where=config.output,
            fix="Give those that it was begun with, or choose another --output.",
        )
    if not (config.output / DESCRIPTION).is_file():  # before the first epoch's end
        return
    run, backbone = read_description(config.output), parts.backbone
    found = {
        "data": (run.data_fingerprint, parts.cache.info.fingerprint),
        "weights of the LLM": (run.backbone.fingerprint, backbone.fingerprint),
        "configuration or tokenizer of the LLM": (run.backbone.configuration, backbone.configuration),
        "prompt": (run.prompt_sha256, parts.model.layout.sha256),
        "metrics": tuple((spec.metrics, spec.key_metric) for spec in (run.dataset, parts.spec)),
    }
    if other := [what for what, (before, now) in found.items() if before not in (None, now)]:
        raise MsekitError(
            f"not as when the run was stopped: {', '.join(other)}",
            where=config.output,
            fix="Put back what it was begun with, or choose another --output.",
        )

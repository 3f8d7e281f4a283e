"""Whether a run's folder holds a state to go on from, for `--resume`, and whether it is of the same run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msekit.distributed.accelerator import on_main
from msekit.errors import MsekitError
from msekit.runs.config import read_config
from msekit.runs.description import read_description
from msekit.runs.files import CONFIG, DESCRIPTION, STATE
from msekit.runs.finished import precision_named
from msekit.runs.go_on import as_ended, asks_for_more, refuse_no_more, set_aside
from msekit.runs.identity import apart, in_words
from msekit.settings.config import RunConfig
from msekit.training.build import Parts
from msekit.training.checkpoint import load_state, saved_dtype
from msekit.training.identity import run_key
from msekit.training.optim import learning_rate

if TYPE_CHECKING:
    from msekit.training.loop import Run


def has_state(config: RunConfig, accelerator: Any) -> bool:
    """Whether there is a state to resume from, as the main process sees it.

    Raises:
        MsekitError: See `refuse_no_more`; or this process does not see the main process's run folder.
    """
    if asks_for_more(config):
        refuse_no_more(config)
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
        "targets": tuple(spec.targets for spec in (run.dataset, parts.spec)),
    }
    if other := [what for what, (before, now) in found.items() if before not in (None, now)]:
        raise MsekitError(
            f"not as when the run was stopped: {', '.join(other)}",
            where=config.output,
            fix="Put back what it was begun with, or choose another --output.",
        )


def restore(run: Run) -> None:
    """Go back to the state that the run's folder holds; a run that had ended goes on for more epochs.

    Raises:
        MsekitError: See `refuse_other_run` and `load_state`.
    """
    config, key = run.config, run.run_key
    saved = read_config(config.output) if asks_for_more(config) else None
    ended = config if saved is None else as_ended(config, saved)
    refuse_other_run(ended, run.parts)
    if saved is not None:
        key = replace(key, accepted=key.accepted | run_key(ended, run.parts).accepted)
    average = run.average.tensors if run.average else None
    run.progress, tensors = load_state(config.output, run.adapter, key, average)
    run.engine.restore(tensors["adapter"], tensors["optim"])
    run.best = tensors["best"]
    if saved is None:
        run.reporter.note(f"seed {config.seed}: resuming after epoch {run.progress.epoch}, batch {run.progress.batch}")
    else:
        _for_more_epochs(run, saved)


def _for_more_epochs(run: Run, saved: RunConfig) -> None:
    """Set aside what a run gave at its end, and say how it goes on."""
    config, progress = run.config, run.progress
    same_schedule = config.optim.epochs == saved.optim.epochs
    if progress.finished:  # else a kill came between this state and the settings
        progress.finished = False
        if not same_schedule:
            progress.ends.append(progress.epoch)
    run.save()
    how = "as it would have with this patience from its beginning"
    if not same_schedule:
        rate = learning_rate(progress.step - progress.skipped, run.total_steps, config.optim.warmup, config.optim.lr)
        how = f"at a learning rate of {rate:.2g} in the schedule of {config.optim.epochs} epochs: no run of so many"
        how += " epochs from its beginning, and the report says so"
    aside = ""
    if run.accelerator.is_main_process:
        aside = f"; what it gave is in {set_aside(config.output, progress.epoch).name}"
    changes = in_words(apart(saved, config))
    run.reporter.note(f"seed {config.seed}, {changes}: goes on after epoch {progress.epoch}, {how}{aside}")

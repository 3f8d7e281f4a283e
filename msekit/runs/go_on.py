"""What to do about a run's folder that is taken: go on with the run in it, where it is the same run. No torch.

A run that has ended goes on, too, where it is asked for more epochs or more patience and for nothing else otherwise.
What it gave is set aside first (`EARLIER`). A kill in between leaves either the run as it had ended or one to go on
with: the state is written first, then the report moves, then the settings are written.
"""

from __future__ import annotations

from pathlib import Path

from msekit.errors import MsekitError
from msekit.runs.config import read_config
from msekit.runs.files import CALIBRATION, CONFIG, EARLIER, PREDICTIONS, REPORT, ROBUSTNESS, STATE
from msekit.runs.folder import refuse_occupied
from msekit.runs.identity import apart, in_words
from msekit.runs.lock import refuse_held
from msekit.runs.report import read_report
from msekit.settings.config import RunConfig


def refuse_taken(config: RunConfig, resume: bool) -> None:
    """Refuse a run whose folder another process trains into or, unless it goes on with it, that holds something.

    Raises:
        MsekitError: It does, with advice that helps: --resume is offered where it will not be refused next.
    """
    refuse_held(config.output)
    refuse_occupied(config.output, resume, _advice(config))


def is_reused(config: RunConfig, resume: bool) -> bool:
    """Whether there is nothing to train: the folder's run has ended, and is to be resumed no further than that."""
    return resume and (config.output / REPORT).is_file() and not asks_for_more(config)


def asks_for_more(config: RunConfig) -> bool:
    """Whether the folder's run has ended and is asked for more epochs or patience, and for nothing else otherwise."""
    folder = config.output
    ended = (folder / REPORT).is_file() or any(folder.glob(f"{EARLIER.format('*')}/{REPORT}"))
    if not ended or not (folder / CONFIG).is_file():
        return False
    saved = read_config(folder)
    now = as_begun(config, saved)
    more = (now.optim.epochs - saved.optim.epochs, now.optim.patience - saved.optim.patience)
    return min(more) >= 0 < max(more) and not apart(saved, as_ended(now, saved))


def as_ended(config: RunConfig, saved: RunConfig) -> RunConfig:
    """A run with the epochs and the patience that the saved one ended with."""
    ended = {"epochs": saved.optim.epochs, "patience": saved.optim.patience}
    return config.model_copy(update={"optim": config.optim.model_copy(update=ended)})


def refuse_no_more(config: RunConfig) -> None:
    """Refuse to go on with a run that has ended where that would change nothing, or cannot be done.

    Raises:
        MsekitError: Its patience had run out and still has, all of its epochs were trained and no more are asked for,
            or its state is gone.
    """
    folder, optim = config.output, config.optim
    if not (folder / STATE).is_file():
        saved = read_config(folder)
        differences = in_words(apart(saved, as_begun(config, saved)))
        raise MsekitError(
            f"the output folder holds a finished run with other settings: {differences}; the state that it could go "
            f"on from is gone ({STATE})",
            where=folder,
            fix="Choose another --output.",
        )
    report = read_report(folder)
    if report is None or report.epochs is None or report.best_epoch is None:
        return
    if report.epochs - report.best_epoch >= optim.patience:
        raise MsekitError(
            f"training ended after epoch {report.epochs}: none was better than epoch {report.best_epoch} for "
            f"{optim.patience} epochs (optim.patience), and more of them alone change nothing",
            where=folder,
            fix=f"Add --set optim.patience={2 * optim.patience}, or choose another --output.",
        )
    if report.epochs >= optim.epochs:
        raise MsekitError(
            f"all {optim.epochs} epochs were trained, and more patience alone changes nothing",
            where=folder,
            fix=f"Add --epochs {2 * optim.epochs}, or choose another --output.",
        )


def set_aside(folder: Path, epochs: int) -> Path:
    """Move what a run gave at its end after so many epochs into a folder of its own, which is returned."""
    earlier = folder / EARLIER.format(epochs)
    earlier.mkdir(exist_ok=True)
    for name in (REPORT, PREDICTIONS, CALIBRATION, ROBUSTNESS):
        if (folder / name).is_file():
            (folder / name).replace(earlier / name)
    return earlier


def as_begun(config: RunConfig, saved: RunConfig) -> RunConfig:
    """A run with its batches in the parts that the saved one's are in, where neither profile nor settings say it: the
    card that it was begun on may have needed more."""
    if config.profile is not None or "accumulation" in config.optim.model_fields_set:
        return config
    return config.model_copy(
        update={"optim": config.optim.model_copy(update={"accumulation": saved.optim.accumulation})}
    )


def _goes_on(config: RunConfig) -> bool:
    """Whether a run that has ended would go on with --resume."""
    try:
        if asks_for_more(config):
            refuse_no_more(config)
            return True
    except MsekitError:
        pass
    return False


def _advice(config: RunConfig) -> str:
    other = "choose another --output."
    try:
        saved = read_config(config.output) if (config.output / CONFIG).is_file() else None
        differences = None if saved is None else apart(saved, as_begun(config, saved))
    except MsekitError:
        differences = None
    if differences is None:  # no run, or one that cannot be read
        return other.capitalize()
    if differences and _goes_on(config):
        return f"Go on with it ({in_words(differences)}) with --resume, or {other}"
    if differences:
        return f"It was made with other settings ({in_words(differences)}): {other}"
    return f"Continue it with --resume, or {other}"

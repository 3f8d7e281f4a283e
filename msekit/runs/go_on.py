"""What to do about a run's folder that is taken: go on with the run in it, where it is the same run. No torch."""

from __future__ import annotations

from msekit.errors import MsekitError
from msekit.runs.config import read_config
from msekit.runs.files import CONFIG
from msekit.runs.folder import refuse_occupied
from msekit.runs.identity import apart, in_words
from msekit.runs.lock import refuse_held
from msekit.settings.config import RunConfig


def refuse_taken(config: RunConfig, resume: bool) -> None:
    """Refuse a run whose folder another process trains into or, unless it goes on with it, that holds something.

    Raises:
        MsekitError: It does, with advice that helps: --resume is offered where it will not be refused next.
    """
    refuse_held(config.output)
    refuse_occupied(config.output, resume, _advice(config))


def as_begun(config: RunConfig, saved: RunConfig) -> RunConfig:
    """A run with its batches in the parts that the saved one's are in, where neither profile nor settings say it: the
    card that it was begun on may have needed more."""
    if config.profile is not None or "accumulation" in config.optim.model_fields_set:
        return config
    return config.model_copy(
        update={"optim": config.optim.model_copy(update={"accumulation": saved.optim.accumulation})}
    )


def _advice(config: RunConfig) -> str:
    other = "choose another --output."
    try:
        saved = read_config(config.output) if (config.output / CONFIG).is_file() else None
        differences = None if saved is None else apart(saved, as_begun(config, saved))
    except MsekitError:
        differences = None
    if differences is None:  # no run, or one that cannot be read
        return other.capitalize()
    if differences:
        return f"It was made with other settings ({in_words(differences)}): {other}"
    return f"Continue it with --resume, or {other}"

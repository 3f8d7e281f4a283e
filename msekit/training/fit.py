"""A run and the machine at hand, before anything is loaded: how a batch is divided, what is recomputed.

The division decides numbers (to rounding), so it is settled first, and a run that goes on keeps its own.
"""

from __future__ import annotations

from msekit.backbones.catalogue import BACKBONES, canonical_name
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.backbones.load import architecture_of
from msekit.gpu import GIB
from msekit.planning.at_hand import beyond_card, fitted_line, in_parts, leaves_parts_open
from msekit.planning.plan_run import plan_run
from msekit.reporter import Reporter
from msekit.runs.config import read_config
from msekit.runs.files import CONFIG
from msekit.runs.go_on import as_begun
from msekit.settings.config import RunConfig
from msekit.settings.profiles import profile_of


def fitted(config: RunConfig, resume: bool = False, seeds: int = 1) -> RunConfig:
    """The run with its batches in as many parts as the card at hand needs, where neither profile nor settings say it.

    Args:
        config: The run.
        resume: A run that its folder holds goes on, in the parts that it was begun in.
        seeds: How many runs share a pass through the backbone.

    Raises:
        MsekitError: See `plan_run`.
    """
    if resume and (config.output / CONFIG).is_file():
        return as_begun(config, read_config(config.output))
    if not leaves_parts_open(config, profile_of(config.profile)):
        return config
    if canonical_name(config.backbone) not in BACKBONES:  # the plan needs its configuration, which may be to download
        architecture_of(checkpoint_folder(config.backbone))
    return in_parts(config, plan_run(config, seeds).config.optim.accumulation)


def planned(config: RunConfig, reporter: Reporter, seeds: int = 1, training: bool = True) -> tuple[bool, int]:
    """Whether to use gradient checkpointing, and the evaluation batch: as the settings say, or as the plan does."""
    recompute, evaluation_batch = config.model.checkpointing, config.evaluation.batch_size
    if recompute != "auto" and evaluation_batch is not None:
        return recompute == "on", evaluation_batch
    architecture_of(checkpoint_folder(config.backbone))  # at hand and loadable, before anything is planned for it
    plan = plan_run(config, seeds)
    for line in beyond_card(plan):
        reporter.warn(line)
    if (otherwise := fitted_line(plan, training)) is not None:
        reporter.note(otherwise)
    elif recompute == "auto" and plan.checkpointing:
        reporter.note("the plan needs gradient checkpointing to fit; --set model.checkpointing=off does without")
    if recompute == "auto" and not plan.fits:
        reporter.warn(f"about {plan.total / GIB:.1f} GiB are needed; try {' '.join(plan.advice)}")
    return plan.checkpointing, plan.work.scored_samples

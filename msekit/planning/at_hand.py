"""A plan and the card at hand: the parts that a batch is divided into to fit it, and what is said of both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msekit.gpu import GIB, card_at_hand
from msekit.planning.memory import EVALUATION_BATCH
from msekit.settings.config import RunConfig
from msekit.settings.profiles import Profile

if TYPE_CHECKING:
    from msekit.planning.plan_run import Plan


def leaves_parts_open(config: RunConfig, profile: Profile) -> bool:
    """Whether a batch may be computed in more parts than settings say: on the card at hand, where none say it."""
    return config.profile is None and profile.device == "cuda" and "accumulation" not in config.optim.model_fields_set


def divisions(config: RunConfig) -> Iterator[int]:
    """Numbers of parts that divide a batch further than the settings do."""
    parts = 2 * config.optim.accumulation
    while parts <= config.optim.batch_size:
        yield parts
        parts *= 2


def in_parts(config: RunConfig, parts: int) -> RunConfig:
    """The same run, its batches in so many parts."""
    return config.model_copy(update={"optim": config.optim.model_copy(update={"accumulation": parts})})


def fitted_line(plan: Plan, training: bool = True) -> str | None:
    """What the card at hand makes otherwise than the paper's; None where a profile was named, or for nothing.

    Args:
        plan: Of a run.
        training: Whether it is to be trained, not evaluated alone.
    """
    config, profile = plan.config, plan.profile
    if config.profile is not None or profile.device != "cuda":
        return None
    half = "fp16 with loss scaling" if training else "fp16"
    said = [half] if plan.dtype == "fp16" else []
    if training and config.optim.accumulation > 1:
        said.append(f"a batch in {config.optim.accumulation} parts")
    if training and plan.checkpointing and config.model.checkpointing == "auto":
        said.append("layers recomputed")
    if config.evaluation.batch_size is None and plan.work.scored_samples < EVALUATION_BATCH["cuda"]:
        said.append(f"evaluation in batches of {plan.work.scored_samples}")
    to_use = f"{profile.memory_bytes / GIB:.1f} GiB to use{'' if profile.bf16 else ', no bf16'}"
    return f"on {profile.name} ({to_use}): {', '.join(said)}" if said else None


def beyond_card(plan: Plan) -> list[str]:
    """What a plan takes for granted that the card at hand has not: a named profile's memory, bf16 that was asked for.

    A card has somewhat less memory than it is sold with: a 24 GB card 23.6 GiB.
    """
    card, profile = card_at_hand(), plan.profile
    if card is None:
        return []
    said = []
    sold_with = math.ceil(card.memory_bytes / GIB)
    too_large = profile.memory_bytes > sold_with * GIB or plan.total > card.memory_bytes
    if plan.config.profile is not None and profile.device == "cuda" and too_large:
        said.append(
            f"profile {profile.name} counts on {profile.memory_bytes / GIB:.1f} GiB, this machine's card is {card}: "
            "what fits there may not fit here; leave --profile out to plan for the card"
        )
    if plan.config.model.dtype == "bf16" and not card.bf16:
        said.append(f"{card.name} only imitates bf16, which is asked for: --set model.dtype=fp16 is quicker")
    return said

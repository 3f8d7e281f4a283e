"""Profiles: what a machine holds and the settings that suit it. They ship in `configs/profiles/`; no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msekit.errors import MsekitError, nearest
from msekit.gpu import GIB, Card, card_at_hand
from msekit.paths import shipped
from msekit.words import first_fault
from msekit.yaml_file import read_mapping


class Profile(BaseModel):
    """A kind of machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    device: Literal["cuda", "cpu"]
    memory_gb: float | None = Field(None, gt=0)
    """Of one card, in GiB; None for the machine's own memory."""
    bf16: bool = True
    """Whether the card multiplies bf16 numbers itself; where it does not, `model.dtype: auto` is fp16."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Run settings, below those of the recipe and of the published pair."""

    @property
    def memory_bytes(self) -> int:
        """What a run may use: the card's memory, or the machine's."""
        if self.memory_gb is not None:
            return int(self.memory_gb * GIB)
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def read_profile(name: str) -> Profile:
    """A profile by its shipped name or by path.

    Raises:
        MsekitError: No such profile (the nearest are offered), or a wrong key in it.
    """
    files = {path.stem: path for path in (shipped("configs") / "profiles").glob("*.yaml")}
    path = files.get(name, Path(name))
    if not path.is_file():
        raise MsekitError(f"no profile '{name}'", fix=nearest(name, files, "A YAML's path works too."))
    try:
        return Profile(**{"name": path.stem} | read_mapping(path, "profile"))
    except ValidationError as error:
        raise MsekitError(first_fault(error)[2], where=path) from error


def profile_at_hand(name: str | None) -> str | None:
    """The profile that a run was made with, if it is here: a file of someone's own may be on another machine."""
    at_hand = name is not None and (
        (shipped("configs") / "profiles" / f"{name}.yaml").is_file() or Path(name).is_file()
    )
    return name if at_hand else None


def default_profile() -> str:
    """`rtx4090`, the paper's machine, where there is a CUDA device, `cpu` elsewhere."""
    return "cpu" if card_at_hand() is None else "rtx4090"


def profile_of(name: str | None) -> Profile:
    """The profile of that name or path; without one the default, on a GPU with the card at hand in place of its own.

    Raises:
        MsekitError: See `read_profile`.
    """
    if name is not None:
        return read_profile(name)
    profile, card = read_profile(default_profile()), card_at_hand()
    return profile if card is None else on_card(profile, card)


def on_card(profile: Profile, card: Card) -> Profile:
    """A profile with a card's name, memory and precision in place of its own."""
    settings = profile.settings | {"model": profile.settings.get("model", {}) | {"dtype": "auto"}}
    memory = card.usable_bytes / GIB
    return profile.model_copy(update={"name": card.name, "memory_gb": memory, "bf16": card.bf16, "settings": settings})

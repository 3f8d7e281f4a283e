"""Profiles: what a machine holds and the settings that suit it. They ship in `configs/profiles/`; no torch."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msekit.errors import MsekitError, nearest
from msekit.paths import shipped
from msekit.yaml_file import read_mapping

GIB = 1 << 30


class Profile(BaseModel):
    """A kind of machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    device: Literal["cuda", "cpu"]
    memory_gb: float | None = Field(None, gt=0)
    """Of one card, in GiB; None for the machine's own memory."""
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
        raise MsekitError(f"no profile '{name}'", fix=nearest(name, files) + " A YAML's path works too.")
    try:
        return Profile(**{"name": path.stem} | read_mapping(path, "profile"))
    except ValidationError as error:
        first = error.errors()[0]
        raise MsekitError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", where=path) from error


def profile_at_hand(name: str | None) -> str | None:
    """The profile that a run was made with, if it is here: a file of someone's own may be on another machine."""
    at_hand = name is not None and (
        (shipped("configs") / "profiles" / f"{name}.yaml").is_file() or Path(name).is_file()
    )
    return name if at_hand else None


def default_profile() -> str:
    """`rtx4090` where there is a CUDA device, `cpu` elsewhere; a CPU build of torch is told without importing it."""
    if version("torch").endswith("+cpu"):
        return "cpu"
    import torch

    return "rtx4090" if torch.cuda.is_available() else "cpu"

"""Extractor: the record of what made a modality's features, kept beside them and in the plug-in to be compared."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from msekit.errors import MsekitError


class Extractor(BaseModel):
    """The maker of one modality's features."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    """Release of the package that computes them."""
    settings: dict[str, Any] = {}

    def __str__(self) -> str:
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.name} {self.version}" + (f" ({settings})" if settings else "")


def check_extractor(modality: str, trained: Extractor | None, offered: Extractor | None, where: object = None) -> None:
    """Refuse features of another extractor than the one that a plug-in was trained on.

    Args:
        modality: `audio` or `vision`, for the message.
        trained: The record of the training's features; None where there is none.
        offered: The record of these features; None where there is none. Only two records can be compared.
        where: The file of these features, for the message.

    Raises:
        MsekitError: Both are on record and differ.
    """
    if trained is not None and offered is not None and trained != offered:
        raise MsekitError(
            f"the plug-in was trained on {modality} features of {trained}, these are of {offered}",
            where=where,
            fix="Extract them again as in training.",
        )

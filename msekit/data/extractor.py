"""What features were made by: written beside them, kept with the plug-in, compared before a prediction."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from msekit.errors import MsekitError


class Extractor(BaseModel):
    """The maker of one modality's features."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    """Of the package that computes them."""
    settings: dict[str, Any] = {}

    def __str__(self) -> str:
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.name} {self.version}" + (f" ({settings})" if settings else "")


def check_kind(modality: str, trained: Extractor | None, given: Extractor | None, where: object = None) -> None:
    """Refuse features of another kind than a plug-in was trained on; what is not on record cannot be compared.

    Raises:
        MsekitError: Both are known and differ.
    """
    if trained is not None and given is not None and trained != given:
        raise MsekitError(
            f"the plug-in was trained on {modality} features of {trained}, these are of {given}",
            where=where,
            fix="Extract them again as in training.",
        )

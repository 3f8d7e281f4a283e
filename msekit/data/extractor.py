"""Extractor: the record of what made a modality's features, kept beside them and in the plug-in to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from msekit.errors import MsekitError

_LANGUAGES = {"en": "English", "zh": "Chinese"}


class Extractor(BaseModel):
    """The maker of one modality's features."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    """Release of the package that computes them."""
    settings: dict[str, Any] = {}
    place: str | None = None
    """Folder of an encoder that came from one; it may move, and is no part of what the features are."""

    @property
    def is_encoder(self) -> bool:
        """Whether it is a pretrained model: `version` then names its weights."""
        return "layers" in self.settings

    def makes_the_same(self, other: Extractor) -> bool:
        """Whether features of both can be mixed."""
        return self.model_copy(update={"place": None}) == other.model_copy(update={"place": None})

    def record(self) -> dict[str, Any]:
        """It as JSON."""
        return self.model_dump(exclude_none=True)

    def __str__(self) -> str:
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.name} {self.version}" + (f" ({settings})" if settings else "")


_KINDS: dict[str, dict[str, tuple[type, ...]]] = {
    "text": {"language": (str,), "beam": (int,)},
    "audio": {"layers": (str,), "output": (str,)},
    "vision": {"layers": (str,), "output": (str,), "pictures_per_second": (int, float), "crop": (str,)},
    "face": {"face": (str,), "pictures_per_second": (int, float)},
}


def check_settings(record: Extractor, kind: Literal["text", "audio", "vision", "face"]) -> None:
    """Refuse a record whose settings lack something or are of another kind: it may come with anyone's plug-in.

    Args:
        record: Of a transcriber (`text`), of an encoder (`audio`, `vision`), or of faces.
        kind: Which of them.

    Raises:
        MsekitError: They do.
    """
    for key, types in _KINDS[kind].items():
        value: Any = record.settings.get(key)
        size: Any = 1 if isinstance(value, str) else value
        if not isinstance(value, types) or isinstance(value, bool) or not size > 0:
            raise MsekitError(f"the record of {record.name} has no usable '{key}'", where=f"extractors, {kind}")
    if kind == "vision" and record.settings["crop"] != "none" and len(record.settings["crop"].split()) != 2:
        raise MsekitError(f"the record of {record.name} has no usable 'crop'", where=f"extractors, {kind}")


def other_language(extractors: Mapping[Any, Extractor], language: str) -> str | None:
    """What to tell whoever reads speech of one language through an encoder of another; None if none does.

    Args:
        extractors: Modality → record.
        language: Of the set.
    """
    audio = extractors.get("audio")
    speech = audio.settings.get("speech") if audio is not None else None
    if audio is None or speech in (None, language):
        return None
    heard, spoken = (_LANGUAGES.get(name, name) for name in (speech, language))
    return f"{audio.name} was trained on {heard} speech alone, and this set is {spoken}: whisper-… heard many languages"


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
    if trained is not None and offered is not None and not trained.makes_the_same(offered):
        raise MsekitError(
            f"the plug-in was trained on {modality} features of {trained}, these are of {offered}",
            where=where,
            fix="Extract them again as in training.",
        )

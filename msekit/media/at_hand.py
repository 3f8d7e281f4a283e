"""Whether what reads a plug-in's clips is on this machine: it is loaded to see that, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msekit.data.extractor import Extractor, check_settings
from msekit.errors import MsekitError


def not_at_hand(extractors: Mapping[Any, Extractor]) -> Iterator[str]:
    """Yield a sentence for each modality whose clips cannot be read here.

    Args:
        extractors: Modality → record.
    """
    for kind, record in extractors.items():
        try:
            _load(kind, record)
        except MsekitError as error:
            yield f"clips cannot be read as {kind}: {error}"


def _load(kind: str, record: Extractor) -> None:
    from msekit.media.vision import EXTRACTOR, FIRST_ENGINE

    if kind == "text":
        from msekit.media.transcribe import load_transcriber

        load_transcriber(record)
    elif record.is_encoder:
        from msekit.media.encoders import encoder_of

        check_settings(record, "audio" if kind == "audio" else "vision")
        encoder_of(record, kind)
    elif record.name == EXTRACTOR:
        from msekit.media.face_engines import face_engine

        check_settings(record, "face")
        face_engine(record.settings.get("engine", FIRST_ENGINE)).version()

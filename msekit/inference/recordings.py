"""Clips and long recordings without typed words: heard by a transcriber, cut into utterances, predicted one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msekit.data.catalogue import MODALITIES
from msekit.data.extractor import Extractor
from msekit.errors import MsekitError
from msekit.inference.plugin import PlugIn
from msekit.media.extract import features_of
from msekit.media.segments import cut
from msekit.media.table import Clip
from msekit.media.transcribe import transcriber, transcript


def ears_of(plug_in: PlugIn, name: str | None) -> Extractor:
    """The transcriber of a plug-in's training texts, or another by name.

    Raises:
        MsekitError: Training's texts were not transcribed, and none is named; or it cannot be had.
    """
    if name is not None:
        return transcriber(name, plug_in.description.dataset.language)
    record = plug_in.description.dataset.extractors.get("text")
    if record is None:
        raise MsekitError(
            "there is no text, and the plug-in's training texts were typed", fix="Give --text, or --transcribe MODEL."
        )
    return record


def predict_recording(
    plug_in: PlugIn,
    recording: Path,
    folder: Path,
    ears: Extractor,
    complain: Callable[[str, str], None],
    *,
    estimate: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a record for each utterance: id, start and end in seconds, text, prediction and scores.

    A plug-in trained with context reads the utterances before each as its history; nobody says who spoke.

    Args:
        plug_in: What predicts.
        recording: Sound, or a film.
        folder: Where the utterances are cut to.
        ears: What hears the words.
        complain: Called with the id of an utterance and what was left out of it or done to it.
        estimate: Another point estimate than the run's own.

    Raises:
        MsekitError: The recording cannot be decoded, or nobody speaks in it.
    """
    said: list[str] = []
    for piece in cut(Clip("utterance", recording), folder):
        features = {key: _features(plug_in, piece, key, complain) for key in MODALITIES}
        text = transcript(piece.path, ears)
        prediction = plug_in.predict(text, **features, history=said or None, ids=None, estimate=estimate)
        for note in prediction.notes:
            if not note.startswith("this plug-in reads"):
                complain(piece.id, note)
        said = [*said, text][-plug_in.description.context :] if plug_in.description.context else []
        record = {key: value for key, value in prediction.record().items() if key != "id"}
        yield {"id": piece.id, "start": piece.start, "end": piece.end, "text": text} | record


def _features(plug_in: PlugIn, piece: Clip, modality: str, complain: Callable[[str, str], None]) -> Any:
    """(L, D) of a modality that the plug-in reads; None, and a line that says why, where the utterance has none."""
    extractor = plug_in.description.dataset.extractors.get(modality)  # type: ignore[call-overload]
    if not plug_in.description.widths[modality] or extractor is None:  # type: ignore[index]
        return None
    try:
        return features_of(piece.path, modality, extractor)
    except MsekitError as error:
        complain(piece.id, f"no {modality}: {error.what}")
        return None

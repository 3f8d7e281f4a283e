"""The names of extractors → the plan of an extraction."""

from __future__ import annotations

from msekit.errors import MsekitError
from msekit.media.audio import EXTRACTORS, audio_extractor
from msekit.media.face_engines import ENGINES
from msekit.media.records import ExtractionPlan
from msekit.media.vision import EXTRACTOR, FaceChoice, vision_extractor


def plan_of(
    audio: str, vision: str, layers: str | None, one_vector: bool, crop: str, face: FaceChoice
) -> ExtractionPlan:
    """The extractors that names and options mean; encoders are loaded and tried before hours are spent.

    Args:
        audio: `egemaps`, `logmel`, `none`, or an encoder.
        vision: `face`, `face-mesh`, `face-landmarker`, `none`, or an encoder.
        layers: Of encoders; None for their defaults.
        one_vector: Of encoders: a clip's mean.
        crop: Of vision encoders: `face` or `none`.
        face: Which face, where several show.

    Raises:
        MsekitError: An unknown name, an option without effect, or an extractor that cannot be used here.
    """
    faces = {EXTRACTOR: None, **{f"{EXTRACTOR}-{name}": name for name in ENGINES}}
    listens, sees = audio not in (*EXTRACTORS, "none"), vision not in (*faces, "none")
    if not (listens or sees) and (layers is not None or one_vector):
        raise MsekitError("--layers and --one-vector are of encoders", fix="Name one: --audio hubert-base.")
    if crop == "face" and not sees:
        raise MsekitError("--crop is of vision encoders", fix="Name one: --vision clip-large.")
    if audio == vision == "none":
        raise MsekitError("nothing to extract", fix="Leave --audio or --vision at something.")
    if not listens and not sees:
        return ExtractionPlan(
            None if audio == "none" else audio_extractor(audio),
            None if vision == "none" else vision_extractor(face, faces[vision]),
        )
    from msekit.media.encoders import encoder_extractor

    heard = encoder_extractor(audio, "audio", layers, one_vector=one_vector, known=EXTRACTORS) if listens else None
    cut = face if crop == "face" else None
    known = tuple(faces)
    seen = encoder_extractor(vision, "vision", layers, one_vector=one_vector, crop=cut, known=known) if sees else None
    return ExtractionPlan(
        heard if listens or audio == "none" else audio_extractor(audio),
        seen if sees or vision == "none" else vision_extractor(face, faces[vision]),
    )

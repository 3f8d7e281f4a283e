"""The names of extractors → the plan of an extraction."""

from __future__ import annotations

from msekit.data.extractor import Extractor
from msekit.errors import MsekitError
from msekit.media.added_extractors import EXTRACTORS as ADDED
from msekit.media.added_extractors import added_extractor
from msekit.media.audio import EXTRACTORS, audio_extractor
from msekit.media.face_engines import ENGINES
from msekit.media.face_model import fetch_face_model
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
    plain = {"audio": (*EXTRACTORS, "none"), "vision": (*faces, "none")}
    listens, sees = (
        audio not in plain["audio"] and audio not in ADDED,
        vision not in plain["vision"] and vision not in ADDED,
    )
    if not (listens or sees) and (layers is not None or one_vector):
        raise MsekitError("--layers and --one-vector are of encoders", fix="Name one: --audio hubert-base.")
    if crop == "face" and not sees:
        raise MsekitError("--crop is of vision encoders", fix="Name one: --vision clip-large.")
    if face != "largest" and not (vision in faces or crop == "face"):
        raise MsekitError("--face is of pictures that are cut to a face", fix="Add --crop face, or leave --face out.")
    if audio == vision == "none":
        raise MsekitError("nothing to extract", fix="Leave --audio or --vision at something.")
    if not listens and not sees:
        return ExtractionPlan(
            None if audio == "none" else audio_extractor(audio),
            _seen(vision, face, faces),
        )
    from msekit.media.encoders import encoder_extractor

    heard = encoder_extractor(audio, "audio", layers, one_vector=one_vector, known=EXTRACTORS) if listens else None
    cut = face if crop == "face" else None
    known = tuple(faces)
    seen = encoder_extractor(vision, "vision", layers, one_vector=one_vector, crop=cut, known=known) if sees else None
    return ExtractionPlan(
        heard if listens or audio == "none" else audio_extractor(audio),
        seen if sees else _seen(vision, face, faces),
    )


def _seen(vision: str, face: FaceChoice, faces: dict[str, str | None]) -> Extractor | None:
    """The extractor of pictures that is no encoder: of a face, or one that a package adds."""
    if vision in ADDED:
        return added_extractor(vision, "vision", tuple(faces)).record
    if faces.get(vision) == "landmarker":  # named by the user: that asks for its model
        fetch_face_model()
    return None if vision == "none" else vision_extractor(face, faces[vision])

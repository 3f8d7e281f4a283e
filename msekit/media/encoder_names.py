"""ENCODERS: one entry per encoder with a short name. Any other speech or vision encoder works by folder or hub id.

Revisions are pinned, so that features made today and next year are of the same weights. No torch.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from msekit.backbones.checkpoints.download import cached_folder, hub_folder
from msekit.backbones.checkpoints.weight_files import weight_files
from msekit.errors import MsekitError, nearest

PREPROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""One of these says how an encoder's input is prepared."""
_BLOCK = 4 << 20


@dataclass(frozen=True)
class EncoderEntry:
    """Where an encoder comes from."""

    modality: str
    hub: str
    revision: str
    """Commit of the hub repository."""
    speech: str | None = None
    """The one language of the speech that it was trained on; None for several, or for pictures."""


ENCODERS = {
    "hubert-base": EncoderEntry(
        "audio", "facebook/hubert-base-ls960", "dba3bb02fda4248b6e082697eee756de8fe8aa8a", "en"
    ),
    "hubert-large": EncoderEntry(
        "audio", "facebook/hubert-large-ll60k", "ff022d095678a2995f3c49bab18a96a9e553f782", "en"
    ),
    "wavlm-large": EncoderEntry("audio", "microsoft/wavlm-large", "c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c", "en"),
    "chinese-hubert-large": EncoderEntry(
        "audio", "TencentGameMate/chinese-hubert-large", "90cb660492214f687e60f5ca509b20edae6e75bd", "zh"
    ),
    "wav2vec2": EncoderEntry("audio", "facebook/wav2vec2-base-960h", "22aad52d435eb6dbaf354bdad9b0da84ce7d6156", "en"),
    "whisper-tiny": EncoderEntry("audio", "openai/whisper-tiny", "169d4a4341b33bc18d8881c4b69c2e104e1cc0af"),
    "whisper-base": EncoderEntry("audio", "openai/whisper-base", "e37978b90ca9030d5170a5c07aadb050351a65bb"),
    "whisper-small": EncoderEntry("audio", "openai/whisper-small", "973afd24965f72e36ca33b3055d56a652f456b4d"),
    "whisper-medium": EncoderEntry("audio", "openai/whisper-medium", "abdf7c39ab9d0397620ccaea8974cc764cd0953e"),
    "whisper-large-v3": EncoderEntry("audio", "openai/whisper-large-v3", "06f233fe06e710322aca913c1bc4249a0d71fce1"),
    "clip-large": EncoderEntry("vision", "openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41"),
    "siglip2": EncoderEntry("vision", "google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2"),
    "dinov2": EncoderEntry("vision", "facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415"),
    "videomae": EncoderEntry("vision", "MCG-NJU/videomae-base", "dc740ceda42fce44faed2ea03c6d447db72f6af9"),
}


@dataclass(frozen=True)
class EncoderPlace:
    """An encoder's files on this machine."""

    name: str
    """Short name, hub id, or the folder's own name."""
    version: str
    """Commit of the hub repository; for a folder, what its weights and configuration hash to."""
    folder: Path
    is_folder: bool
    """Whether the user gave a folder."""
    speech: str | None = None


def encoder_place(name: str, modality: str, known: tuple[str, ...] = ()) -> EncoderPlace:
    """Find an encoder, downloaded first where it is not on this machine.

    Args:
        name: Short name, folder, or hub id, which may end in `@revision`.
        modality: `audio` or `vision`.
        known: Other names that the option takes, for the message.

    Raises:
        MsekitError: No such name, an encoder of the other modality, or a download that failed.
    """
    if name in ENCODERS:
        entry = ENCODERS[name]
        if entry.modality != modality:
            raise MsekitError(f"'{name}' is an encoder for {entry.modality}, not for {modality}")
        return EncoderPlace(name, entry.revision, _fetched(entry.hub, entry.revision), False, entry.speech)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return EncoderPlace(folder.resolve().name, digest_of(folder.resolve()), folder.resolve(), True)
    repository, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or repository.startswith((".", "~")):
        own = [*known, *(key for key, entry in ENCODERS.items() if entry.modality == modality)]
        fix = f"{nearest(name, own)} A folder or a hub id works too."
        raise MsekitError(f"unknown {modality} extractor '{name}'", fix=fix)
    folder = _fetched(repository, revision or None)
    return EncoderPlace(repository, folder.name, folder, False)


def place_of(name: str, version: str, folder: str | None) -> EncoderPlace:
    """The encoder of a record, with the very weights that it names; nothing is fetched.

    A record comes with a plug-in, which others may have made: it does not decide what is downloaded.

    Args:
        name: As in `EncoderPlace`.
        version: As there.
        folder: Where the folder lay; None for one from the hub.

    Raises:
        MsekitError: It is no longer there, or other weights are.
    """
    if folder is None:
        repository = ENCODERS[name].hub if name in ENCODERS else name
        cached = cached_folder(repository, version, PREPROCESSORS)
        if cached is None:
            raise MsekitError(
                f"the encoder {repository} is not on this machine, and a record of it downloads nothing",
                fix=f"If you trust it: hf download {repository} --revision {version}",
            )
        return EncoderPlace(name, version, cached, False)
    place = Path(folder)
    if not place.is_dir():
        fix = "Put the encoder's folder there again, or a link to it."
        raise MsekitError(f"the encoder '{name}' is not where it was", where=place, fix=fix)
    if (found := digest_of(place)) != version:
        raise MsekitError(f"the encoder's files are others ({found}) than those in use before ({version})", where=place)
    return EncoderPlace(name, version, place, True)


@lru_cache(maxsize=8)
def digest_of(folder: Path) -> str:
    """What a folder's configuration, preprocessing and weights hash to: equal where every byte is.

    Raises:
        MsekitError: No configuration, preprocessing or weights.
    """
    settings = [folder / name for name in ("config.json", *PREPROCESSORS) if (folder / name).is_file()]
    if not settings or settings[0].name != "config.json":
        raise MsekitError("no config.json: not an encoder", where=folder)
    if len(settings) == 1:
        raise MsekitError("nothing says how input is prepared", where=folder, fix=f"It needs {PREPROCESSORS[0]}.")
    digest = hashlib.sha256()
    for path in (*settings, *weight_files(folder)):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return f"sha256-{digest.hexdigest()[:24]}"


def _fetched(repository: str, revision: str | None) -> Path:
    return hub_folder(repository, revision, PREPROCESSORS, "Or give the folder of a downloaded encoder.")

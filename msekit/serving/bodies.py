"""What a request to /api/predict says: its JSON body within bounds, its history, what is heard in its clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request

from msekit.data.catalogue import MODALITIES
from msekit.errors import MsekitError
from msekit.inference.given_features import MOST_FRAMES
from msekit.inference.samples import utterance_of
from msekit.json_file import parse_json
from msekit.media.decode import CLIP_SUFFIXES, has_sound
from msekit.runs.description import Description
from msekit.words import reason

_LARGEST_JSON = 16 << 20  # bytes, of the longest published sample 10 million; fifty clients may send at once
_MOST_LISTS = len(MODALITIES) * MOST_FRAMES + 8
"""In a JSON body; a million take Python seconds in which nobody else is answered."""
OF_A_SAMPLE = ("text", *MODALITIES, "history", "speaker")
_KEYS = {"plug_in", "sample", "samples", "withheld", *OF_A_SAMPLE}


async def body_of(request: Request) -> bytes:
    """A JSON body; of one that is too large no more is kept than is allowed.

    Raises:
        MsekitError: It is too large.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= _LARGEST_JSON:
            parts.append(part)
    if size > _LARGEST_JSON:
        raise MsekitError(f"the body is larger than {_LARGEST_JSON >> 20} MB", fix="Upload features as files.")
    return b"".join(parts)


def fields_of(body: bytes) -> dict[str, Any]:
    """The fields of a JSON body.

    Raises:
        MsekitError: It is no JSON object, has an unknown key, or holds more lists than features have frames.
    """
    if body.count(b"[") + body.count(b"{") > _MOST_LISTS:
        raise MsekitError(f"the body holds more than {_MOST_LISTS:,} lists", fix="Upload features as files.")
    try:
        fields = parse_json(body)
    except ValueError as error:
        raise MsekitError(f"the body is not JSON: {reason(error)}") from error
    if not isinstance(fields, dict):
        raise MsekitError("the body is not a JSON object")
    if stray := sorted(fields.keys() - _KEYS):
        raise MsekitError(f"unknown key '{stray[0]:.80}'")
    return fields


def refuse_all_but_a_sample(fields: Mapping[str, Any]) -> None:
    """Refuse whatever is typed, sent or uploaded, where only the data set's samples are answered.

    Raises:
        MsekitError: A field beside `plug_in`, `sample` and `withheld` is not empty, or no sample is picked.
    """
    given = sorted(key for key in fields.keys() - {"plug_in", "sample", "withheld"} if fields[key] not in (None, ""))
    if given:
        raise MsekitError(f"only samples of the data set are answered here: '{given[0]:.80}' is not read")
    if not fields.get("sample"):
        raise MsekitError("no sample is picked, and only samples of the data set are answered here")


def heard(folder: Path, description: Description) -> str:
    """What is said in an uploaded clip, where training's texts were transcribed too; empty where they were not.

    Empty too for a clip without sound: what it shows is read all the same.
    """
    record = description.dataset.extractors.get("text")
    clips = [path for path in sorted(folder.iterdir()) if path.suffix in CLIP_SUFFIXES]
    if record is None or not clips:
        return ""
    from msekit.media.transcribe import transcript  # a plug-in with typed texts needs none of it

    if not has_sound(clips[0]):
        return ""
    return transcript(clips[0], record)


def history_of(value: Any) -> Any:
    """History as JSON has it; as the page's field has it, a line for each utterance, `Ross: I did.`"""
    return [utterance_of(line) for line in value.splitlines() if line.strip()] if isinstance(value, str) else value

"""Whether a clip is all there, told from what it says of its own length.

A copy that broke off decodes without an error in most formats: its features would be those of the beginning alone.
What a file does not say (raw streams, MP3 without a header of its own) cannot be compared.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import IO

from msekit.errors import MsekitError

_UNKNOWN = 0x7FFF0000  # bytes; programs that write to a pipe state the largest number that they can
_LAST_BYTES = 1 << 17  # an Ogg page has at most 65,307
_SHORT_SECONDS, _SHORT_SHARE = 0.1, 0.02  # coders pad and trim this much
_COMPLAINT = re.compile(r"(\[[^\]]* @ [^\]]*\] )*\[(warning|error|fatal)\] ")
_BREAKS_OFF = re.compile(r"partial file|ended prematurely")
_DURATION = re.compile(r"^\[info\]   Duration: (\d+):(\d\d):(\d\d\.\d+)(?:, start: (\d+\.\d+))?", re.MULTILINE)


def check_bytes(path: Path) -> None:
    """Compare a WAV, AVI or Ogg file's size with what its headers say.

    Raises:
        MsekitError: It is shorter.
    """
    with path.open("rb") as file:
        first = file.read(12)
        if first[:4] == b"RIFF":
            _check_riff(file, first, path)
        elif first[:4] == b"OggS":
            _check_last_page(file, path)


def check_length(report: str, seconds: float, path: Path) -> None:
    """Compare decoded sound with what ffmpeg says of the file.

    Args:
        report: ffmpeg's words about the file.
        seconds: Length of the decoded sound.
        path: The file.

    Raises:
        MsekitError: The file breaks off, or its sound is shorter than it says.
    """
    check_report(report, path)
    stated = _DURATION.search(report)
    pictures = [line for line in report.splitlines() if "Video:" in line and "attached pic" not in line]
    if stated is None or pictures:  # a film's length may be that of its pictures
        return
    if any("Estimating duration from bitrate" in line for line in _complaints(report, path)):
        return  # the file does not say it
    hours, minutes, rest, start = stated.groups()
    length = 3600 * int(hours) + 60 * int(minutes) + float(rest)
    if start and "[info] Input #0, matroska" in report:  # where the length is the time of the end
        length -= float(start)
    if seconds < length * (1 - _SHORT_SHARE) - _SHORT_SECONDS:
        raise _shorter(f"{seconds:.2f} s of its {length:.2f} s", path)


def check_report(report: str, path: Path) -> None:
    """Refuse a file of which ffmpeg says that it breaks off.

    Raises:
        MsekitError: It does.
    """
    if any(_BREAKS_OFF.search(line) for line in _complaints(report, path)):
        raise MsekitError("the clip breaks off before its end", where=path, fix="Copy or download it again")


def _complaints(report: str, path: Path) -> list[str]:
    """What ffmpeg warns of, without the names and titles that somebody gave."""
    lines = [line for line in report.splitlines() if _COMPLAINT.match(line)]
    return [line.replace(str(path.resolve()), "") for line in lines]


def _check_riff(file: IO[bytes], first: bytes, path: Path) -> None:
    size = os.fstat(file.fileno()).st_size
    stated = struct.unpack("<I", first[4:8])[0] + 8
    if first[8:12] != b"WAVE":
        if size < stated < _UNKNOWN:
            raise _shorter(f"{size} of its {stated} bytes", path)
        return
    per_second = 1
    while len(header := file.read(8)) == 8:
        name, length = header[:4], struct.unpack("<I", header[4:])[0]
        here = size - file.tell()
        if name == b"data":
            if length < _UNKNOWN and length - here > per_second // 100:
                raise _shorter(f"{here / per_second:.2f} s of its {length / per_second:.2f} s", path)
            return
        if name == b"fmt " and length >= 12:
            content = file.read(12)
            if len(content) == 12:
                per_second = max(struct.unpack("<I", content[8:])[0], 1)
            file.seek(length - 12, os.SEEK_CUR)
        else:
            file.seek(length, os.SEEK_CUR)
        file.seek(length % 2, os.SEEK_CUR)


def _check_last_page(file: IO[bytes], path: Path) -> None:
    file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
    end = file.read()
    page = end[end.rfind(b"OggS") :]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) <= 26 or len(page) < 27 + page[26] + sum(lengths):
        raise MsekitError("the clip breaks off before its end", where=path, fix="Copy or download it again")


def _shorter(how: str, path: Path) -> MsekitError:
    return MsekitError(
        f"the clip is shorter than it says: {how} are there", where=path, fix="Copy or download it again"
    )

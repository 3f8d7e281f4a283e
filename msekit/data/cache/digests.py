"""Checksums of a data set's files, each computed once for as long as the file stays as it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from msekit.data.cache.write_split import blocks
from msekit.errors import MsekitError
from msekit.json_file import read_json
from msekit.words import reason

MEMO = "hashes.json"
"""Beside the caches: file → size, times of change and checksum."""
_RACY_SECONDS = 2.0  # a file changed this recently may change again within its time stamp's resolution


def digests_of(files: list[Path], memo_path: Path) -> list[str]:
    """sha256 of each file's content. The memo keeps size and times of change beside each, so that an unchanged file is
    not read again: published files reach 10 GB, and each start would lose several seconds on them."""
    try:
        memo = read_json(memo_path)
        memo = memo if isinstance(memo, dict) else {}
    except MsekitError:
        memo = {}
    hashes, news = [], {}
    for file in files:
        try:
            stat = file.stat()
            stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            remembered = memo.get(str(file.resolve()))
            if isinstance(remembered, list) and remembered == _entry(file, stamp, "".join(map(str, remembered[3:4]))):
                hashes.append(remembered[3])
                continue
            digest = hashlib.sha256()
            for block in blocks(file):
                digest.update(block)
        except OSError as error:
            raise MsekitError(f"the file cannot be read: {reason(error)}", where=file) from error
        hashes.append(digest.hexdigest())
        if time.time() - max(stat.st_mtime, stat.st_ctime) > _RACY_SECONDS:
            news[str(file.resolve())] = _entry(file, stamp, hashes[-1])
    if news:
        with contextlib.suppress(OSError):  # only a saving of time
            memo_path.parent.mkdir(parents=True, exist_ok=True)
            temporary = memo_path.with_name(f".{memo_path.name}.{os.getpid()}")
            temporary.write_text(json.dumps({**memo, **news}, indent=1), encoding="utf-8")
            temporary.replace(memo_path)
    return hashes


def _entry(file: Path, stamp: list[int], digest: str) -> list[Any]:
    """An entry of the memo, with a checksum: another digest would make another data set of equal rows."""
    return [*stamp, digest, zlib.crc32(f"{file.resolve()} {stamp} {digest}".encode("utf-8", "surrogateescape"))]

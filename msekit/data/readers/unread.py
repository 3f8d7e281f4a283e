"""Features that are there and nobody reads: found by listing, told in sentences, refused where none is used at all.

A feature file that matches no sample is no reason to stop a run, but the run then goes on without what it holds.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from msekit.data.catalogue import MODALITIES
from msekit.data.readers.feature_files import ARRAY_SUFFIXES, FEATURE_SUFFIXES
from msekit.data.readers.rows import Unread
from msekit.errors import MsekitError

FOLDERS = (*MODALITIES, "features")
"""Where feature files lie."""
_LIKE_A_MODALITY = {
    "audio": ("audio", "audios", "acoustic", "speech", "sound", "wav", "voice"),
    "vision": ("vision", "visual", "video", "videos", "face", "faces", "image", "images"),
}
_CLIPS = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".mp4", ".mov", ".avi", ".webm", ".mkv")
_NO_FEATURES = ("readme", "license", "thumbs.db", "desktop.ini")
_OF_MODELS = ("adapter", "config.json", "tokenizer")  # how names begin
_NAMED = 3


def listing(folder: Path) -> list[Path]:
    """All files in the folders of features, by name, without hidden ones and words about them."""
    return sorted(path for name in FOLDERS for path in (folder / name).rglob("*") if _counts(path, folder))


def is_feature_file(path: Path) -> bool:
    """Whether the ending is one that is read."""
    return path.suffix.lower() in FEATURE_SUFFIXES


def is_array(path: Path) -> bool:
    """The same outside the folders of features, where a CSV may be anything."""
    return path.suffix.lower() in ARRAY_SUFFIXES


def elsewhere(folder: Path) -> list[Path]:
    """Feature files beside the samples' file or in folders of other names, by name; deeper ones are of other things."""
    here = [path for path in folder.iterdir() if path.name not in FOLDERS and not path.name.startswith(".")]
    inside = (file for path in here for file in _of_folder(path))
    return sorted(path for path in (*here, *inside) if is_array(path) and os.path.isfile(path))


def unread_of(
    folder: Path,
    unused: Collection[Path],
    outside: Collection[Path],
    used: Collection[str],
    ids: Sequence[str],
    present: Collection[str],
    absent: Collection[str],
) -> Unread:
    """What is left once all rows are read.

    Args:
        folder: Of the samples' file.
        unused: Files in the folders of features that belong to no sample.
        outside: Feature files elsewhere.
        used: The folders of features of which some file belongs to a sample.
        ids: The first samples' ids.
        present: The modalities that some sample has.
        absent: Those that the set is said not to have.
    """
    warnings, error = [], None
    for name in FOLDERS:
        left = sorted(path for path in unused if path.relative_to(folder).parts[0] == name)
        if not left:
            continue
        what = f"{name}/ holds {_counted(left, 'belong')} to no sample: {_named(left, folder)}"
        advice = "; ".join(_reasons(left, ids))
        needed = ({name} if name in MODALITIES else set(MODALITIES)) - set(absent)
        if name not in used and needed and not needed & set(present):
            what = f"no sample has {' or '.join(sorted(needed))}, though {what}"
            error = error or MsekitError(what, where=folder, fix=advice)
        else:
            warnings.append(f"{what} ({advice})")
    for name, files in _by_folder(outside, folder):
        what = f"{name} holds {_counted(files, 'are')} not read: {_named(files, folder)}"
        advice = "Features lie in audio/, vision/ and features/"
        likely = {key for key, names in _LIKE_A_MODALITY.items() if name.rstrip("/").lower() in names}
        theirs = any(path.name.removesuffix(path.suffix) in ids for path in files)
        if theirs and likely - set(present) - set(absent):
            what = f"no sample has {' or '.join(sorted(likely))}, though {what}"
            error = error or MsekitError(what, where=folder, fix=advice)
        else:
            warnings.append(f"{what} ({advice})")
    return Unread(tuple(warnings), error)


def _of_folder(folder: Path) -> list[Path]:
    """A folder's files, where it can be listed and is not that of a plug-in or a language model."""
    try:
        files = list(folder.iterdir()) if folder.is_dir() else []
    except OSError:
        return []
    return [] if any(file.name.startswith(_OF_MODELS) for file in files) else files


def columns_like_features(held: Iterable[str], read: Collection[str]) -> list[tuple[str, str]]:
    """(modality, column) of columns that are called like features and are not read."""
    found = []
    for name in held:
        stem = name.lower().removesuffix("_path").removesuffix("_features").removesuffix("_file")
        found += [(key, name) for key, names in _LIKE_A_MODALITY.items() if stem in names and name not in read]
    return found


def _counts(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and not path.name.lower().startswith(_NO_FEATURES) and path.suffix != ".md" and path.is_file()


def _counted(files: Sequence[Path], verb: str) -> str:
    """`1 file that belongs`, `2 files that belong`."""
    one = {"belong": "belongs", "are": "is"}[verb]
    return f"1 file that {one}" if len(files) == 1 else f"{len(files)} files that {verb}"


def _named(files: Sequence[Path], folder: Path) -> str:
    names = ", ".join(str(path.relative_to(folder).relative_to(_top(path, folder))) for path in files[:_NAMED])
    return names + (", …" if len(files) > _NAMED else "")


def _top(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else "."


def _by_folder(files: Iterable[Path], folder: Path) -> Iterator[tuple[str, list[Path]]]:
    groups: dict[str, list[Path]] = {}
    for path in files:
        top = _top(path, folder)
        groups.setdefault("the folder of the samples" if top == "." else f"{top}/", []).append(path)
    yield from groups.items()


def _reasons(left: Sequence[Path], ids: Sequence[str]) -> Iterator[str]:
    """Why these files belong to no sample, a reason for each ending."""
    for suffix, _ in Counter(path.suffix for path in left).most_common():
        if suffix.lower() in FEATURE_SUFFIXES:
            yield f"a file is called like its sample's id, and the ids are {', '.join(ids[:_NAMED])}"
        elif suffix.lower() in _CLIPS:
            yield f"{suffix}: make features with msekit extract"
        else:
            yield f"{suffix or 'no ending'} is not read: save arrays as {', '.join(FEATURE_SUFFIXES)}"

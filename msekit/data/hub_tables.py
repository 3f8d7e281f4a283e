"""`--dataset hub:owner/name`: a table of samples in the hub's own form, Parquet files by split → a folder of one's own.

    hub:owner/name   hub:owner/name/configuration   hub:owner/name@revision

The files are downloaded once (`<cache>/downloads/<owner>--<name>/`), compared with the hub's checksums, and used
offline from then on. Columns that hold files (sound, pictures) are left out with a word; `columns` says which of the
others is what. Class names are taken where the repository gives them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from msekit.data.bounds import parquet_batches
from msekit.downloads import HubFile, HubRepo, download, explained, is_whole, listing
from msekit.errors import MsekitError
from msekit.paths import cache_root
from msekit.reporter import Reporter

PREFIX = "hub:"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<part>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
_SPLIT = re.compile(r"(?:^|[-_.])(train|validation|valid|val|dev|test)(?=$|[-_.])")
_TABLE, _RECORD = "samples.parquet", "table.json"
_OTHERWISE = "Or download it yourself, and give its folder with --source."


@dataclass(frozen=True)
class Wanted:
    """What a name asks for."""

    repo: HubRepo
    part: str | None
    """The configuration, where a repository has several: its folder."""

    @property
    def folder(self) -> Path:
        """Where it lies here."""
        return cache_root() / "downloads" / self.repo.name.replace("/", "--")

    @property
    def record(self) -> Path:
        """What was downloaded."""
        revision = re.sub(r"\W+", "-", self.repo.revision or "newest")
        return self.folder / f"{self.part or 'all'}-{revision}-{_RECORD}"


def wanted(name: str) -> Wanted:
    """Read a name.

    Raises:
        MsekitError: It is none.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise MsekitError(f"'{name}' is no data set of the hub", fix="Write hub:owner/name, with @revision if any.")
    return Wanted(HubRepo(found["repo"], "dataset", found["revision"]), found["part"])


def described(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """A data set of the hub as a description of a folder; downloaded where it is not here.

    Args:
        name: With the prefix.
        said: What options say of it.

    Raises:
        MsekitError: It cannot be downloaded, or neither it nor the options say what its labels are.
    """
    if said.get("source"):
        raise MsekitError(f"{name} brings its own files", where="--source", fix="Leave one of the two out.")
    here = wanted(name)
    folder = _downloaded(here) or fetch_table(name, Reporter())
    raw: dict[str, Any] = {"name": here.repo.name.partition("/")[2], "layout": "folder", "source": folder}
    raw |= {"hub": here.repo.name, "hub_revision": here.repo.revision} | dict(said)
    known, columns = json.loads(here.record.read_text(encoding="utf-8"))["classes"], dict(said.get("columns") or {})
    if raw.get("targets"):
        chosen = {name: _part(target, "classes") for name, target in dict(raw["targets"]).items()}
        _check_order(chosen, {name: known.get(columns.get(name, name)) for name in chosen}, name)
        return raw
    if "labels" in raw:
        _check_order({"label": raw["labels"]}, {"label": known.get(columns.get("label", "label"))}, name)
    elif "range" not in raw:
        if (names := known.get(columns.get("label", "label"))) is None:
            fix = "Say them: --labels joy,anger,… or --range -3,3. It holds the columns "
            fix += ", ".join(_columns(folder / _TABLE)) + " (--columns text=NAME,label=NAME)"
            raise MsekitError(f"{name} does not say what its labels are", fix=fix)
        raw["labels"] = names
    return {"task": "msa" if "range" in raw else "erc"} | raw


def _part(target: Any, key: str) -> Any:
    """A key of a target, as a mapping or as a `Target`."""
    return target.get(key) if isinstance(target, Mapping) else getattr(target, key, None)


def _check_order(chosen: Mapping[str, Any], held: Mapping[str, list[str] | None], name: str) -> None:
    """Class names that are said stand in the hub's order: the table holds their numbers.

    Raises:
        MsekitError: They are the same names in another order.
    """
    for key, names in chosen.items():
        there = held[key]
        if names and there and sorted(names) == sorted(there) and list(names) != there:
            what = f"the classes of '{key}' are said in another order than {name} numbers them"
            raise MsekitError(what, fix=f"Give them so: {','.join(there)}.")


def _downloaded(here: Wanted) -> Path | None:
    try:
        folder = here.folder / json.loads(here.record.read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if (folder / _TABLE).is_file() else None


def fetch_table(name: str, reporter: Reporter) -> Path:
    """Download a data set's Parquet files and make one table of them; what is here and whole is not loaded again.

    Returns:
        The folder that holds `samples.parquet`.

    Raises:
        MsekitError: There is no such repository or revision, or it holds no Parquet files by split; see `explained`.
    """
    here = wanted(name)
    with explained(here.repo, f"the data set '{name}'", _OTHERWISE):
        here.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(here.folder / ".lock"):
            commit, listed = listing(here.repo)
            splits = by_split(here, listed)
            files = [file for part in splits.values() for file in part]
            place = here.folder / commit
            missing = [file for file in files if not is_whole(place / file.path, file)]
            if missing:
                volume = sum(file.size for file in missing) / 1e6
                reporter.note(f"downloading {len(missing)} file(s) ({volume:,.1f} MB) of {here.repo.name}")
            for file in missing:
                download(here.repo, commit, file, here.folder / f"{file.digest}.partial", place / file.path)
            table = place / f"{here.part or 'all'}-table"
            parts = {split: [place / file.path for file in part] for split, part in splits.items()}
            if not (table / _TABLE).is_file():
                write_table(parts, table, reporter)
            record = {"folder": str(table.relative_to(here.folder)), "classes": _classes(files, place)}
            _write(here.record, json.dumps(record, ensure_ascii=False, indent=1))
    return table


def by_split(here: Wanted, listed: Mapping[str, HubFile]) -> dict[str, list[HubFile]]:
    """Split → its Parquet files, in their order.

    Raises:
        MsekitError: There are none, or those of several configurations.
    """
    found: dict[str, dict[str, list[HubFile]]] = {}
    for path in sorted(listed):
        pure = PurePosixPath(path)
        if pure.suffix != ".parquet":
            continue
        said = [match for part in (pure.stem, *reversed(pure.parts[:-1])) if (match := _SPLIT.search(part))]
        if said:
            split = {"validation": "valid", "val": "valid", "dev": "valid"}.get(said[0][1], said[0][1])
            folder = "/".join(part for part in pure.parts[:-1] if not _SPLIT.search(part))
            found.setdefault(folder, {}).setdefault(split, []).append(listed[path])
    chosen = {folder: splits for folder, splits in found.items() if here.part in (None, *folder.split("/"))}
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    if chosen:
        names = ", ".join(sorted(folder or "the top" for folder in chosen))
        fix = f"Name one: hub:{here.repo.name}/{sorted(chosen)[-1].rpartition('/')[2]}"
        raise MsekitError(f"the repository has several configurations: {names}", where=here.repo.name, fix=fix)
    shown = ", ".join(sorted(listed)[:12]) or "nothing"
    raise MsekitError(
        "the repository has no Parquet files called by their split", where=here.repo.name, fix=f"It holds: {shown}."
    )


def write_table(parts: Mapping[str, Iterable[Path]], folder: Path, reporter: Reporter) -> None:
    """One table of the files of all splits, with a column that says the split.

    Raises:
        MsekitError: The files cannot be read, or their columns differ.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    making = folder.with_name(f".{folder.name}.{os.getpid()}")
    making.mkdir(parents=True, exist_ok=True)
    writer, path = None, None
    try:
        for split, paths in parts.items():
            for path in paths:
                with pq.ParquetFile(path) as file:
                    names = [field.name for field in file.schema_arrow if not _holds_files(field.type)]
                    if writer is None and len(names) < len(file.schema_arrow.names):
                        left = ", ".join(name for name in file.schema_arrow.names if name not in names)
                        reporter.note(f"columns of files are left out: {left} (msekit extract reads clips)")
                    classes = _classes_in(file.schema_arrow)
                    for batch in parquet_batches(file, path, names, most=1024):
                        table = pa.Table.from_batches([batch]).select([name for name in names if name != "split"])
                        table = _labelled(table, classes, path)
                        table = table.append_column("split", pa.array([split] * len(table))).replace_schema_metadata()
                        writer = writer or pq.ParquetWriter(making / _TABLE, table.schema)
                        writer.write_table(table)
    except (pa.ArrowException, ValueError) as error:
        raise MsekitError(f"the table cannot be read: {str(error)[:200]}", where=path) from error
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise MsekitError("the tables have no rows", where=folder)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(making, folder)


def _labelled(table: Any, classes: Mapping[str, list[str]], path: Path) -> Any:
    """A table in which negative numbers of classes, the hub's word for no label, are nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in set(classes) & set(table.column_names):
        column = table[name]
        if not pa.types.is_integer(column.type):
            continue
        if (most := pc.max(column).as_py()) is not None and most >= len(classes[name]):
            raise MsekitError(f"'{name}' has a label {most} and {len(classes[name])} classes", where=path)
        known = pc.if_else(pc.less(column, 0), pa.scalar(None, column.type), column)
        table = table.set_column(table.column_names.index(name), name, known)
    return table


def _holds_files(kind: Any) -> bool:
    """Sound or pictures as the hub keeps them: a path and bytes."""
    import pyarrow as pa

    return pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _classes(files: list[HubFile], place: Path) -> dict[str, list[str]]:
    """Column → class names, as the hub's library writes them beside the schema."""
    import pyarrow.parquet as pq

    return _classes_in(pq.read_schema(place / files[0].path))


def _classes_in(schema: Any) -> dict[str, list[str]]:
    said = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(said)["info"]["features"] if said else {}
        return {name: list(kind["names"]) for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)

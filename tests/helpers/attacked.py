"""Every reader of the kit with a whole file to be damaged: see `mutants.py`.

`readers(folder, run)` makes small whole files in a folder, from a finished run of `synthetic-erc` on tiny-llama.
"""

from __future__ import annotations

import io
import json
import random
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import torch
import yaml
from attacked_page import of_the_page
from attacked_runs import changed, of_a_backbone, of_a_run
from mutants import Reader, json_mutant, lines_mutant, mutated, yaml_mutant

from msekit.data.cache.cache import prepare
from msekit.data.catalogue import SPLITS, DatasetSpec, read_spec
from msekit.data.readers.feature_files import read_features
from msekit.data.readers.open_source import open_source
from msekit.errors import MsekitError
from msekit.experiments.grid import read_grid
from msekit.media.decode import sound
from msekit.media.records import ExtractionPlan, finished
from msekit.settings.profiles import read_profile
from msekit.sharing.import_authors import read_authors_checkpoint
from tests.sharing.test_import_authors import authors_checkpoint


def readers(folder: Path, run: Path) -> list[Reader]:
    """All of them."""
    of_runs = [*of_a_run(folder, run), *of_a_backbone(folder, run)]
    return [*of_runs, *_of_data(folder), *_of_features(folder), *_of_pickles(folder), of_the_page(run)]


def _of_data(folder: Path) -> list[Reader]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    own, drawn = folder / "own", np.random.default_rng(0)
    (own / "audio").mkdir(parents=True)
    rows = [
        {"id": f"c{i}", "text": f"text {i}", "label": "ab"[i % 2], "split": SPLITS[i % 3], "speaker": "s"}
        | {"vision": drawn.normal(size=(3, 2)).round(3).tolist()}
        for i in range(12)
    ]
    for row in rows:
        np.save(own / "audio" / f"{row['id']}.npy", drawn.normal(size=(4, 3)).astype(np.float32))
    table = pa.Table.from_pylist(rows)
    files = {"jsonl": io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())}
    pq.write_table(table, files.setdefault("parquet", io.BytesIO()))
    for kind in ("file", "stream"):
        with getattr(pa.ipc, f"new_{kind}")(files.setdefault(kind, io.BytesIO()), table.schema) as to:
            to.write_table(table)
    cells = [f'"text, {i}",{"ab"[i % 2]},{SPLITS[i % 3]},c{i}' for i in range(12)]
    csv = "\n".join(["text,label,split,id", *cells, ""]).encode()

    def read(spec: DatasetSpec) -> None:
        source = open_source(spec)
        for split in SPLITS:
            for row in source.rows(split):
                row.text.encode(), row.id.encode()
                assert np.isfinite(row.label)

    def samples(kind: str) -> Reader:
        data = files[kind].getvalue()

        def use(content: bytes) -> None:
            for old in own.glob("samples.*"):
                old.unlink()
            (own / f"samples.{'arrow' if kind in ('file', 'stream') else kind}").write_bytes(content)
            read(DatasetSpec(name="o", task="erc", layout="folder", labels=("a", "b"), source=own))

        make = lines_mutant if kind == "jsonl" else mutated
        return Reader(f"samples, {kind}", data, make, use)

    def of_csv(content: bytes) -> None:
        (folder / "t.csv").write_bytes(content)
        read(DatasetSpec(name="o", task="erc", layout="csv", labels=("a", "b"), source=folder / "t.csv"))

    kinds = [samples(kind) for kind in files]
    return [*kinds, Reader("CSV", csv, mutated, of_csv), _cache(folder), *_of_settings(folder)]


def _cache(folder: Path) -> Reader:
    """Whole caches are checked by checksums, and built anew where one differs."""
    spec, whole = (
        DatasetSpec(name="synthetic-erc", task="erc", layout="synthetic", labels=("a", "b", "c", "d")),
        folder / "c0",
    )
    first = prepare(spec, root=whole)
    names = [path.relative_to(whole) for path in whole.rglob("*") if path.suffix in (".json", ".arrow")]

    def facts(cache: Any) -> Any:
        splits = [cache.split(split) for split in SPLITS]
        return cache.info, [
            (split.ids, split.texts, split.labels.tolist(), split.audio(0).tolist()) for split in splits
        ]

    expected = facts(first)

    def make(_: tuple[str, bytes], rng: random.Random) -> tuple[str, bytes]:
        name = rng.choice(names)
        data = (whole / name).read_bytes()
        return str(name), json_mutant(data, rng) if name.suffix == ".json" else mutated(data, rng)

    def use(mutant: tuple[str, bytes]) -> Any:
        return facts(prepare(spec, root=changed(whole, *mutant, folder / "c1")))

    undamaged = str(names[0]), (whole / names[0]).read_bytes()
    return Reader("cache", undamaged, make, use, lambda found: found != expected, True)


def _of_settings(folder: Path) -> list[Reader]:
    described = {"name": "moods", "task": "erc", "layout": "folder", "source": ".", "labels": ["a", "b"]}
    described |= {"aliases": {"x": "a"}, "text_limit": 50, "split_sizes": [1, 2, 3], "audio_width": 3}
    profile = {"device": "cuda", "memory_gb": 12, "settings": {"optim": {"accumulation": 2}}}
    base = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "optim.epochs": 1}
    grid = {"output": str(folder / "grid"), "base": base, "grid": {"seed": [1, 2], "optim.lr": [0.001, 0.002]}}

    def reader(name: str, document: Any, read: Callable[[Path], Any]) -> Reader:
        path = folder / f"{name.replace(' ', '-')}.yaml"

        def use(content: bytes) -> Any:
            path.write_bytes(content)
            return read(path)

        return Reader(name, yaml.safe_dump(document, sort_keys=False).encode(), yaml_mutant, use)

    return [
        reader("description", described, lambda path: read_spec(path).task_prompt),
        reader("profile", profile, lambda path: read_profile(str(path))),
        reader("grid", grid, read_grid),
    ]


def _of_features(folder: Path) -> list[Reader]:
    from safetensors.numpy import save

    frames = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    files: dict[str, bytes] = {"safetensors": save({"audio": frames, "vision": frames})}
    for name, write, arrays in (
        ("npy", np.save, (frames,)),
        ("npz", lambda to, one: np.savez(to, audio=one, other=one), (frames,)),
        ("packed.npz", lambda to, one: np.savez_compressed(to, audio=one), (frames,)),
    ):
        stream = io.BytesIO()
        write(stream, *arrays)
        files[name] = stream.getvalue()

    def features(name: str) -> Reader:
        path = folder / f"x.{name}"

        def use(content: bytes) -> Any:
            path.unlink(missing_ok=True)  # a mapped file is never written over
            path.write_bytes(content)
            return np.array(read_features(path, "audio"))

        def differs(found: Any) -> bool:
            return not np.array_equal(found, frames)

        return Reader(f"features.{name}", files[name], mutated, use, differs, name.endswith("npz"))

    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes((np.sin(np.arange(8000) / 20) * 9000).astype("<i2").tobytes())
    clip = stream.getvalue()

    def listen(content: bytes) -> None:
        (folder / "a.wav").write_bytes(content)
        assert np.isfinite(sound(folder / "a.wav")).all()

    old = io.BytesIO()
    tensors = authors_checkpoint(64, (4, 2), (4, 2), 2)
    torch.save(tensors, old, _use_new_zipfile_serialization=False)  # the kind of file that is one long pickle

    def checkpoint(content: bytes) -> None:
        (folder / "a.pth").write_bytes(content)
        read_authors_checkpoint(folder / "a.pth")

    plan = ExtractionPlan(None, None)
    record = {"id": "a", "stamp": [1, 2], "frames": {"audio": 3}, "problems": {}}
    log = f"{json.dumps(plan.record())}\n{json.dumps(record)}\n".encode()

    def extraction(content: bytes) -> None:
        (folder / "extract.jsonl").write_bytes(content)
        for result in finished(folder, plan, None).values():
            assert set(result.frames) <= {"audio", "vision"}

    return [
        *map(features, files),
        Reader("clip.wav", clip, mutated, listen),
        Reader("checkpoint.pth", old.getvalue(), mutated, checkpoint),
        Reader("extract.jsonl", log, lines_mutant, extraction),
    ]


def _of_pickles(folder: Path) -> list[Reader]:
    """Published sets, by the mutations of `fuzzing.py`, which know a pickle's instructions."""
    (place := folder / "pickles").mkdir()

    def make(_: bytes, rng: random.Random) -> bytes:
        drawn = np.random.default_rng(rng.randrange(1 << 32))
        return rng.choice([fuzzing.mutated, fuzzing.rearranged])(rng.choice(fuzzing.SEEDS), drawn)

    def use(content: bytes) -> None:
        if fuzzing.try_file(place, content) == "refused":
            raise MsekitError("by both layouts")

    return [Reader("published.pkl", fuzzing.SEEDS[0], make, use)]

"""Feature files made to hurt: nothing in them runs, and none costs more time or memory than its size justifies."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fuzzing
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msekit.data import bounds
from msekit.data import verify as verification
from msekit.data.catalogue import DatasetSpec
from msekit.data.readers.feature_files import read_features
from msekit.data.readers.open_source import open_source
from msekit.data.readers.own_tables import read_table
from msekit.data.readers.unpickle import map_pickle
from msekit.data.verify import verify
from msekit.errors import MsekitError

MEMORY, SECONDS = 48 << 20, 10.0  # for files of at most a megabyte


@contextmanager
def bounded() -> Iterator[None]:
    """At most so much processor time and memory (tracemalloc makes both worse)."""
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
        seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY, f"{peak / 1e6:.0f} MB"
    assert seconds < SECONDS


NAMED = (Path(__file__).parent / "attack_names.txt").read_text().split()
"""What published pickle attacks and gadget collections name."""


@pytest.mark.parametrize("name", NAMED)
def test_no_other_name_is_reached(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    canary = str(tmp_path / "canary")
    path = tmp_path / "x.pkl"
    text = b"X" + struct.pack("<I", len(canary)) + canary.encode()
    stack = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute)) + b"\x93"
    forms = [
        f"c{module}\n{attribute}\n".encode() + text + b"\x85R.",
        b"\x80\x04" + stack + text + b"\x85R.",
        b"(" + text + f"i{module}\n{attribute}\n.".encode(),
        b"\x80\x04" + stack + text + b"\x85\x81.",
        b"\x80\x04]" + stack + b"a.",  # named, not called
        # the name comes out of the memo, in two parts that are used twice
        b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x940" + b"h\x00\x8c" + bytes([len(attribute)])
        + attribute.encode() + b"\x93.",
    ]  # fmt: skip
    for form in forms:
        path.write_bytes(form)
        with pytest.raises(MsekitError, match="not executed"):
            map_pickle(path)
    assert not Path(canary).exists()


def test_a_memo_that_is_changed_behind_a_name(tmp_path: Path) -> None:
    """The stand-in is stored, and the same place is written again before it is called."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02c__builtin__\nlist\nq\x00cos\nsystem\nq\x000h\x00S'true'\n\x85R.")
    with pytest.raises(MsekitError, match=r"os\.system"):
        map_pickle(path)


SIZE = 1 << 17
BYTES = b"\x80\x04\x8e" + struct.pack("<Q", SIZE) + b"x" * SIZE + b"\x94"
TEXT = b"\x80\x04X" + struct.pack("<I", SIZE) + b"x" * SIZE + b"\x94"
NULLS = b"\x80\x04](" + b"N" * SIZE + b"e\x94"
EXPLOSIONS = {
    "bytes of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".",
    "text of 2^31": b"X\xff\xff\xff\x7fabc.",
    "text of 2^60": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b".",
    "bytearray of 2^40": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "number of a million bytes": b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b".",
    "hex number of a million digits": b"I0x" + b"f" * (1 << 20) + b"\n.",
    "frame of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "memo of 2^32": b"Nr\xff\xff\xff\xffj\xfe\xff\xff\xff.",
    "copies of bytes": BYTES + b"](" + b"cbuiltins\nbytearray\nh\x00\x85R" * 5000 + b"e.",
    "copies of text": TEXT + b"](" + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 5000 + b"e.",
    "copies of a list": NULLS + b"](" + b"cbuiltins\nlist\nh\x00\x85R" * 5000 + b"e.",
    "copies of a tuple": NULLS + b"](" + b"cbuiltins\ntuple\nh\x00\x85R" * 5000 + b"e.",
    "bytes taken apart": BYTES + b"](" + b"cbuiltins\nlist\nh\x00\x85R" * 5000 + b"e.",
    "empty sets": b"\x80\x04](" + b"\x8f" * SIZE + b"e.",
    "empty dicts": b"\x80\x04](" + b"}" * SIZE + b"e.",
    "marks": b"\x80\x04" + b"(" * SIZE + b".",
    "memo of nothing": b"\x80\x04N" + b"\x94" * (4 * SIZE) + b".",
    "array of nothing": b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    b"(K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00S0\x85R\x89C\x00tb.",
    "array of 0 × 2^60": b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    b"(K\x01K\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x10\x86cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R\x89C\x00tb.",
    "array in itself": b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85"
    b"C\x01btR\x94(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R\x89]h\x00atb.",
}


P = (1 << 61) - 1
"""Python's hash of a whole number is its remainder by this."""
COLLIDING = {
    "whole numbers": [number * P for number in range(1, 20_000)],
    "pairs of them": [(number * P, 1) for number in range(1, 20_000)],
    "complex numbers": [complex(-1_000_003.0 * number, number) for number in range(1, 20_000)],
    "fractions": [float(1 << 54) * number for number in range(1, 20_000)],
}


@pytest.mark.parametrize("kind", COLLIDING)
@pytest.mark.parametrize("holder", [dict.fromkeys, set, frozenset])
def test_keys_that_are_chosen_to_have_one_hash(tmp_path: Path, kind: str, holder: type) -> None:
    """Their time would grow with the square of their number."""
    path = tmp_path / "x.pkl"
    keys = COLLIDING[kind]
    # written by hand: making the dict here would take as long
    body = b"(" + b"".join(pickle.dumps(key, 2)[2:-1] + (b"N" if holder is dict.fromkeys else b"") for key in keys)
    ends = {dict.fromkeys: b"d.", set: b"\x90.", frozenset: b"\x91."}
    path.write_bytes(b"\x80\x04" + (b"\x8f" if holder is set else b"") + body + ends[holder])
    with bounded(), pytest.raises(MsekitError, match="as a key"):
        map_pickle(path)


def test_keys_of_moderate_size_are_read(tmp_path: Path) -> None:
    path, keys = tmp_path / "x.pkl", [0, -3, 2**53, 2.5, (1, "a"), 3 + 4j, "text", b"bytes", None, True]
    path.write_bytes(pickle.dumps(dict.fromkeys(keys, 1)))
    assert map_pickle(path)[0] == dict.fromkeys(keys, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPLOSIONS)
def test_no_file_grows(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(EXPLOSIONS[name])
    with bounded(), pytest.raises(MsekitError):
        map_pickle(path)


def spec_of(folder: Path) -> DatasetSpec:
    return DatasetSpec(name="toy", task="erc", layout="erc-pickle", labels=("joy", "anger"), source=folder)


def nested(levels: int) -> list:
    """A list that names itself twice at every level: 2^levels numbers, a few bytes each."""
    value: list = [0.0, 0.0]
    for _ in range(levels):
        value = [value, value]
    return value


def looped() -> list:
    value: list = []
    value += [value, value]
    return value


WIDE = [0.0] * 10_000
TRICKS = {
    "shared lists": {"features": {"text": "a", "audio": nested(60)}, "label": "joy"},
    "a list in itself": {"features": {"text": "a", "audio": looped()}, "label": "joy"},
    "one frame, repeated": {"features": {"text": "a", "audio": [WIDE] * 100_000}, "label": "joy"},
    "a huge label": {"features": {"text": "a"}, "label": 10**600},
    "a huge id": {"features": {"text": "a"}, "label": "joy", "id": 10**600, "speaker": looped()},
    "a long text": {"features": {"text": "a" * 2_000_000}, "label": "joy"},
    "a number as audio": {"features": {"text": "a", "audio": 7}, "label": "joy"},
    "a huge number in audio": {"features": {"text": "a", "audio": [[10**400]]}, "label": "joy"},
    "objects as audio": {"features": {"text": "a", "audio": np.array([["x", None]], dtype=object)}, "label": "joy"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRICKS)
def test_rows_that_are_plain_but_absurd(tmp_path: Path, name: str) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"toy_{split}.pkl").write_bytes(pickle.dumps([TRICKS[name]], protocol=4))
    with bounded():
        outcome = verify(spec_of(tmp_path))
    assert outcome.verdict == "unusable"
    assert all(len(finding.what) < 1000 for finding in outcome.findings)


def test_the_same_features_without_end(tmp_path: Path) -> None:
    """A file of 1 MB whose rows would fill 80 GB of cache."""
    row = {"features": {"text": "a", "audio": np.zeros((1000, 1000), np.int8)}, "label": "joy"}
    for split in ("train", "valid", "test"):
        (tmp_path / f"toy_{split}.pkl").write_bytes(pickle.dumps([row] * 80_000, protocol=4))
    from msekit.data.readers.published import PublishedSet

    source = PublishedSet(spec_of(tmp_path))
    source._budget.left = 50 << 20  # the floor of 2 GB would take seconds here
    with bounded(), pytest.raises(MsekitError, match="64 times the size"):
        for _ in source.rows("train"):
            pass


def test_a_table_of_one_value_is_read_some_rows_at_a_time(tmp_path: Path) -> None:
    """Eight rows of 16 MB in a Parquet file of some kilobytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, frames, width = 8, 1 << 15, 64
    values = pa.array(np.zeros(rows * frames * width))
    inner = pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, width, dtype=np.int32)), values)
    audio = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * frames), inner)
    said = {"text": [f"w{row}" for row in range(rows)], "label": ["joy"] * rows, "split": ["train"] * rows}
    pq.write_table(pa.table({**said, "audio": audio}), tmp_path / "samples.parquet", compression="zstd")
    del values, inner, audio
    assert (tmp_path / "samples.parquet").stat().st_size < 100_000
    spec = DatasetSpec(name="own", task="erc", layout="folder", labels=("joy", "sad"), source=tmp_path)
    before, most = pa.total_allocated_bytes(), 0
    for row in open_source(spec).rows("train"):
        assert row.audio is not None
        assert row.audio.shape == (frames, width)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < bounds._AT_ONCE + (2 * 16 << 20), f"{most >> 20} MB of {rows * 16}"


def test_a_table_of_many_texts_is_read_many_rows_at_a_time(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    letters = np.random.default_rng(0).integers(97, 122, (70_000, 1000), dtype=np.uint8)
    pq.write_table(pa.table({"text": [bytes(row).decode() for row in letters]}), tmp_path / "a.parquet")
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        batches = bounds.parquet_batches(file, tmp_path / "a.parquet", ["text"])
        assert [next(batches).num_rows for _ in range(3)] == [64] * 3


def test_one_long_text_for_every_row_is_read_row_by_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int8()), pa.array(["a" * (32 << 20)]))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        batches = bounds.parquet_batches(file, tmp_path / "a.parquet", ["text"])
        assert next(batches).num_rows <= 2


def test_a_table_that_comes_to_more_than_rows_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    audio = pa.array([np.zeros(1 << 20)])
    pq.write_table(
        pa.table({"text": ["a"], "label": ["joy"], "split": ["train"], "audio": audio}), tmp_path / "samples.parquet"
    )
    monkeypatch.setattr(bounds, "LEAST_BUDGET", 1 << 20)
    with pytest.raises(MsekitError, match="the rows come to 8 MB, over 64 times the size of the file"):
        next(read_table(tmp_path / "samples.parquet", spec_of(tmp_path)))


@pytest.mark.parametrize("value", [None, True, ()], ids=repr)
def test_values_that_say_nothing_in_millions(tmp_path: Path, value: object) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([value] * 3_000_000, protocol=4))
    started = time.process_time()
    with pytest.raises(MsekitError, match="far more memory than its size"):
        map_pickle(tmp_path / "x.pkl")
    assert time.process_time() - started < SECONDS
    (tmp_path / "y.pkl").write_bytes(pickle.dumps([[value, 1.5, "text", value]] * 1000, protocol=4))
    assert map_pickle(tmp_path / "y.pkl")[0] == [[value, 1.5, "text", value]] * 1000


def own_rows(folder: Path, name: str) -> DatasetSpec:
    """Three rows, the first of that id."""
    (folder / "audio").mkdir(parents=True)
    rows = [{"id": name if not n else f"c{n}", "text": f"t{n}", "label": "joy", "split": "train"} for n in range(3)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DatasetSpec(name="own", task="erc", layout="folder", labels=("joy", "sad"), source=folder)


@pytest.mark.parametrize("length", [256, 5000, 100_000])
def test_an_id_that_no_file_can_be_called(tmp_path: Path, length: int) -> None:
    spec = own_rows(tmp_path / "own", "a" * length)
    assert [row.audio for row in open_source(spec).rows("train")] == [None] * 3
    outcome = verify(spec)
    assert all(len(row) < 200 for finding in outcome.findings for row in finding.rows)


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    own_rows(tmp_path / "own", "c0")
    row = {"id": "x", "text": "t", "label": "joy", "split": "train", "audio": f"audio/{'a' * 5000}.npy"}
    (tmp_path / "own" / "samples.jsonl").write_text(json.dumps(row))
    spec = DatasetSpec(name="own", task="erc", layout="folder", labels=("joy", "sad"), source=tmp_path / "own")
    with pytest.raises(MsekitError, match="the audio file cannot be read: the name is too long") as refusal:
        next(open_source(spec).rows("train"))
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("link", ["file", "folder"])
def test_links_are_followed_and_paths_out_are_not(tmp_path: Path, link: str) -> None:
    """A link is its owner's word that features lie elsewhere; a table may come from anyone."""
    spec = own_rows(tmp_path / "own", "c0")
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "elsewhere" / "c0.npy", np.ones((2, 3)))
    audio = tmp_path / "own" / "audio"
    if link == "file":
        (audio / "c0.npy").symlink_to(tmp_path / "elsewhere" / "c0.npy")
    else:
        audio.rmdir()
        audio.symlink_to(tmp_path / "elsewhere")
    assert [row.audio is None for row in open_source(spec).rows("train")] == [False, True, True]
    for name in ("audio/../../elsewhere/c0.npy", str(tmp_path / "elsewhere" / "c0.npy"), "../elsewhere/c0.npy"):
        row = {"id": "x", "text": "t", "label": "joy", "split": "train", "audio": name}
        (tmp_path / "own" / "samples.jsonl").write_text(json.dumps(row))
        with pytest.raises(MsekitError, match="lies outside the folders of features"):
            next(open_source(spec).rows("train"))


def test_unusable_rows_in_millions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_MOST_REFUSED", 50)
    for split in ("train", "valid", "test"):
        (tmp_path / f"toy_{split}.pkl").write_bytes(pickle.dumps([7] * 10_000, protocol=4))
    outcome = verify(spec_of(tmp_path))
    assert outcome.splits["train"].unusable < 60
    assert any("more than 50 rows are unusable; it was read no further" in one.what for one in outcome.findings)


class TestFeatureFiles:
    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple:
                return os.system, (f"touch {tmp_path / 'canary'}",)

        evil = np.array([Evil()], dtype=object)
        np.save(tmp_path / "a.npy", evil, allow_pickle=True)
        np.savez(tmp_path / "a.npz", audio=evil)
        for name in ("a.npy", "a.npz"):
            with pytest.raises(MsekitError):
                read_features(tmp_path / name, "audio", "row 0")
        assert not (tmp_path / "canary").exists()

    @pytest.mark.parametrize(
        "header",
        [
            {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 4)},
            {"descr": "<f8", "fortran_order": False, "shape": (-1, 4)},
            {"descr": [("a", "<f8")], "fortran_order": False, "shape": (4, 4)},
            {"descr": "|O", "fortran_order": False, "shape": (4, 4)},
        ],
    )
    def test_headers_that_lie(self, tmp_path: Path, header: dict) -> None:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, header)
        (tmp_path / "a.npy").write_bytes(stream.getvalue() + b"\0" * 64)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("../../audio.npy", stream.getvalue() + b"\0" * 64)
        with bounded():
            for name in ("a.npy", "a.npz"):
                with pytest.raises(MsekitError, match="row 0"):
                    read_features(tmp_path / name, "audio", "row 0")
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.npy", "a.npz"]

    def test_an_archive_of_zeros(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        shape = (1 << 15, 1 << 13)
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("audio.npy", stream.getvalue() + b"\0" * (8 << 20))
        with bounded(), pytest.raises(MsekitError, match="has shape"):
            read_features(tmp_path / "a.npz", "audio", "row 0")

    def test_an_archive_of_one_value_whose_header_is_right(self, tmp_path: Path) -> None:
        """A thousand times its own size, as its header says: nothing of it is unpacked."""
        stream = io.BytesIO()
        header = {"descr": "<f8", "fortran_order": False, "shape": (12 << 10, 1 << 10)}
        np.lib.format.write_array_header_1_0(stream, header)
        archived = zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED)
        with archived as archive, archive.open("audio.npy", "w") as member:
            member.write(stream.getvalue())
            for _ in range(96):
                member.write(bytes(1 << 20))
        with bounded(), pytest.raises(MsekitError, match=r"unpacks to 96 MB from 0\.1 MB"):
            read_features(tmp_path / "a.npz", "audio", "row 0")

    def test_an_absent_modality_of_zeros_is_read(self, tmp_path: Path) -> None:
        np.savez_compressed(tmp_path / "a.npz", audio=np.zeros((2000, 1024), np.float32))
        assert read_features(tmp_path / "a.npz", "audio", "row 0").shape == (2000, 1024)

    def test_an_archive_takes_its_own_size(self, tmp_path: Path) -> None:
        frames = np.random.default_rng(0).integers(0, 200, (2000, 1024)).astype(np.float32)  # 8 MB
        np.savez_compressed(tmp_path / "a.npz", audio=frames)
        tracemalloc.start()
        read = read_features(tmp_path / "a.npz", "audio", "row 0")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_array_equal(read, frames)
        assert peak < 1.6 * frames.nbytes

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_an_archive_that_unpacks_without_bound(self, tmp_path: Path, method: int) -> None:
        """A kilobyte each; numpy writes no such archive."""
        stream = io.BytesIO()
        header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 20, 12)}
        np.lib.format.write_array_header_1_0(stream, header)
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive, archive.open("audio.npy", "w") as member:
            member.write(stream.getvalue())
            for _ in range(96):
                member.write(bytes(1 << 20))
        assert (tmp_path / "a.npz").stat().st_size < 20_000
        with bounded(), pytest.raises(MsekitError, match="compressed otherwise"):
            read_features(tmp_path / "a.npz", "audio", "row 0")

    @pytest.mark.parametrize("rows", [(1 << 22) - 1, (1 << 22) + 1, 4])
    def test_a_size_that_is_not_the_shapes(self, tmp_path: Path, rows: int) -> None:
        """The directory's size is compared with the array's header before anything is unpacked."""
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (rows, 4)})
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("audio.npy", stream.getvalue() + bytes(64 << 20))
        with bounded(), pytest.raises(MsekitError, match="than its shape says"):
            read_features(tmp_path / "a.npz", "audio", "row 0")

    def test_two_arrays_of_one_name(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", audio=np.ones((2, 2)))
        with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("audio.npy", archive.read("audio.npy"))
        with pytest.raises(MsekitError, match="two arrays of one name"):
            read_features(tmp_path / "a.npz", "audio", "row 0")

    @pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
    def test_a_sequence_that_no_plug_in_takes(self, tmp_path: Path, suffix: str) -> None:
        """A file of a few kilobytes for predict or the page: refused by its header."""
        from safetensors.numpy import save_file

        from msekit.inference.given_features import frames_of

        frames, path = np.zeros((1 << 22, 2), np.float32), tmp_path / f"a{suffix}"
        {
            ".npy": lambda: np.save(path, frames),
            ".npz": lambda: np.savez_compressed(path, audio=frames),
            ".safetensors": lambda: save_file({"audio": frames}, path),
        }[suffix]()
        with bounded(), pytest.raises(MsekitError, match="more than 400,000 values"):
            frames_of(path, "audio", 2, "float32")

    @pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
    def test_damaged_files(self, tmp_path: Path, suffix: str) -> None:
        from safetensors.numpy import save_file

        frames = np.arange(60, dtype=np.float32).reshape(10, 6)
        path = tmp_path / f"a{suffix}"
        {
            ".npy": lambda: np.save(path, frames),
            ".npz": lambda: np.savez_compressed(path, audio=frames),
            ".safetensors": lambda: save_file({"audio": frames}, path),
        }[suffix]()
        np.testing.assert_array_equal(read_features(path, "audio", "row 0"), frames)
        data, rng = path.read_bytes(), np.random.default_rng(0)
        with bounded():
            for number in range(300):
                path.write_bytes(fuzzing.mutated(data, rng) if number % 3 else data[: int(rng.integers(len(data)))])
                try:
                    assert read_features(path, "audio", "row 0").ndim <= 2
                except MsekitError as error:
                    fuzzing.clear(error)


class TestFuzz:
    """A thousand mutated files here; `python tests/helpers/fuzzing.py --files 100000` for more."""

    def test_mutated_files(self, tmp_path: Path) -> None:
        outcome = fuzzing.run(tmp_path, files=1000, seed=0)
        assert sum(outcome.values()) == 1000
        assert min(outcome["read"], outcome["refused"]) > 50, "both sides are reached"

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.binary(max_size=200) | st.lists(st.sampled_from(fuzzing.FRAGMENTS), max_size=40).map(b"".join))
    def test_any_program(self, tmp_path: Path, data: bytes) -> None:
        fuzzing.try_file(tmp_path, data)

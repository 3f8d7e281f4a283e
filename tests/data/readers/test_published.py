"""Published feature files: nothing in them runs, every flaw is named, real files are read as they are."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msekit.data.catalogue import DATASETS, DatasetSpec, resolve_dataset
from msekit.data.readers.published import PublishedSet
from msekit.data.readers.rows import Row
from msekit.data.readers.unpickle import map_pickle
from msekit.errors import MsekitError

REAL = Path(os.environ.get("MSEKIT_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"real data not found at {REAL} (MSEKIT_TEST_DATA)")

SAMPLE = {
    "floats": np.arange(12, dtype=np.float64).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "half": np.array([1.5, np.nan, -np.inf], dtype=np.float16),
    "big endian": np.array([1, 2], dtype=">i4"),
    "empty": np.zeros((0, 5), dtype=np.float32),
    "strings": np.array(["a", "愤怒"]),
    "objects": np.array(["x", None, "long" * 9], dtype=object),
    "bytes array": np.array([b"ab", b"c"]),
    "bool": np.array([True, False]),
    "scalar": np.float32(0.25),
    "integer": np.int64(7),
    "string": np.str_("text"),
    "plain": [1, 2.5, None, True, "s", b"\x00\xff", (1, 2), {3, 4}, frozenset({5}), bytearray(b"z"), 3 + 4j, 10**30],
    "ordered": collections.OrderedDict(a=1),
}


def write(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def equal(first: Any, second: Any) -> bool:
    if isinstance(second, np.ndarray):
        # up to protocol 4 numpy turns an array into the machine's byte order as it reads it
        same = first.dtype.newbyteorder("=") == second.dtype.newbyteorder("=") and first.shape == second.shape
        return same and all(a == b or (a != a and b != b) for a, b in zip(first.flat, second.flat, strict=True))
    if isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in second)
    return bool(first == second)


def twin(data: bytes) -> bytes:
    """The same pickle as the other numpy generation writes it (protocol 0–3: names are lines; 4–5: lengths)."""
    for part in (b"multiarray", b"numeric"):
        new, old = b"numpy._core." + part, b"numpy.core." + part
        data = data.replace(b"c" + new + b"\n", b"c" + old + b"\n")
        data = data.replace(b"\x8c" + bytes([len(new)]) + new, b"\x8c" + bytes([len(old)]) + old)
    return data


class TestSafeLoad:
    @pytest.mark.parametrize("protocol", range(6))
    def test_plain_content_survives(self, tmp_path: Path, protocol: int) -> None:
        loaded, _ = map_pickle(write(tmp_path / "a.pkl", SAMPLE, protocol))
        assert equal(loaded, SAMPLE)

    @pytest.mark.parametrize("protocol", range(2, 6))
    def test_both_numpy_generations(self, tmp_path: Path, protocol: int) -> None:
        arrays = {key: value for key, value in SAMPLE.items() if isinstance(value, (np.ndarray, np.generic))}
        data = pickle.dumps(arrays, protocol=protocol)
        if protocol >= 4:  # the renamed names are one byte shorter: no frames, so that their sizes need not match
            buffer = io.BytesIO()
            writer = pickle._Pickler(buffer, protocol)
            writer.framer.start_framing = lambda: None
            writer.dump(arrays)
            data = buffer.getvalue()
        other = twin(data)
        assert (b"numpy.core" in data) != (b"numpy.core" in other)
        for name, content in (("new", data), ("old", other)):
            (tmp_path / name).write_bytes(content)
            assert equal(map_pickle(tmp_path / name)[0], arrays)

    @pytest.mark.parametrize(
        "content", [b"", b"\x80", b"garbage", b'{"json": 1}', b"PK\x03\x04", b"\x80\x04.", b"0" * 99]
    )
    def test_what_is_no_pickle_says_so(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.pkl").write_bytes(content)
        with pytest.raises(MsekitError, match="truncated or not a pickle") as caught:
            map_pickle(tmp_path / "x.pkl")
        assert caught.value.where == tmp_path / "x.pkl"
        assert caught.value.fix

    @pytest.mark.parametrize("protocol", range(6))
    def test_every_truncation_says_so(self, tmp_path: Path, protocol: int) -> None:
        data = pickle.dumps(SAMPLE, protocol=protocol)
        for cut in range(0, len(data), 7):
            (tmp_path / "x.pkl").write_bytes(data[:cut])
            with pytest.raises(MsekitError, match="truncated or not a pickle"):
                map_pickle(tmp_path / "x.pkl")

    def test_flipped_bytes_give_an_object_or_our_error(self, tmp_path: Path) -> None:
        data = bytearray(pickle.dumps(SAMPLE, protocol=4))
        rng = np.random.default_rng(0)
        for place in rng.integers(0, len(data), 400):
            bad = bytearray(data)
            bad[place] ^= int(rng.integers(1, 256))
            (tmp_path / "x.pkl").write_bytes(bad)
            with contextlib.suppress(MsekitError):
                map_pickle(tmp_path / "x.pkl")

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b"\x8f()", b"\x90."),  # EMPTY_SET … ADDITEMS
            (b"()", b"\x91."),  # FROZENSET
            (b"})", b"Ns."),  # EMPTY_DICT … SETITEM
            (b"}()", b"Nu."),  # SETITEMS
            (b"()", b"Nd."),  # DICT
            (b"c__builtin__\nset\n])", b"a\x85R."),
        ],
    )
    def test_a_deeply_nested_key_is_no_crash(self, tmp_path: Path, before: bytes, after: bytes) -> None:
        (tmp_path / "x.pkl").write_bytes(b"\x80\x04" + before + b"\x85" * 300_000 + after)
        with pytest.raises(MsekitError, match="as a key"):
            map_pickle(tmp_path / "x.pkl")

    def test_a_deep_list_is_no_crash(self, tmp_path: Path) -> None:
        (tmp_path / "toy_train.pkl").write_bytes(b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".")
        for split in ("valid", "test"):
            write(tmp_path / f"toy_{split}.pkl", [])
        with pytest.raises(MsekitError, match="row holds a list"):
            list(PublishedSet(erc_spec(tmp_path)).rows("train"))

    @pytest.mark.parametrize("protocol", [2, 4, 5])
    def test_text_of_impossible_characters(self, tmp_path: Path, protocol: int) -> None:
        broken = np.array([0x110000, 65], dtype="<u4").view("<U2")
        with pytest.raises(MsekitError, match="does not hold text"):
            map_pickle(write(tmp_path / "x.pkl", {"raw_text": broken}, protocol))

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(MsekitError, match="no such file"):
            map_pickle(tmp_path / "none.pkl")
        with pytest.raises(MsekitError, match="cannot be read"):
            map_pickle(tmp_path)


def reduce_of(function: str, argument: bytes) -> bytes:
    """`function(argument)` in protocol 0; function as 'module name'."""
    module, name = function.split(" ")
    return f"c{module}\n{name}\n(".encode() + argument + b"tR."


def stack_global(module: str, name: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93"


ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
OBJECT_DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8I00\nI01\ntR"
FLOAT_DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8I00\nI01\ntR"


def attacks(canary: Path) -> dict[str, bytes]:
    """Pickles that would create `canary` (or corrupt memory) if what they ask for were done."""
    touch = f"S'touch {canary}'\n".encode()
    code = f"S\"open('{canary}', 'w').close()\"\n".encode()
    return {
        "os.system": reduce_of("os system", touch),
        "posix.system": reduce_of("posix system", touch),
        "subprocess": reduce_of("subprocess getoutput", touch),
        "builtins.eval": reduce_of("builtins eval", code),
        "__builtin__.eval": reduce_of("__builtin__ eval", code),
        "builtins.exec": reduce_of("builtins exec", code),
        "builtins.getattr": reduce_of("builtins getattr", b"cnumpy\nndarray\nS'tofile'\n"),
        "dotted name": b"\x80\x04" + stack_global("numpy", "ndarray.tofile") + b".",
        "dotted module": b"\x80\x04" + stack_global("builtins", "dict.fromkeys") + b".",
        "allowed name, other module": b"\x80\x04" + stack_global("os", "dtype") + b".",
        "numpy.testing": reduce_of("numpy.testing._private.utils runstring", code + b"}"),
        "numpy.load": reduce_of("numpy load", touch),
        "numpy.memmap": b"cnumpy\nmemmap\n(S'" + str(canary).encode() + b"'\nS'u1'\nS'w+'\ntR.",
        "numpy.f2py": reduce_of("numpy.f2py.diagnose run_command", touch),
        "numpy.core import": b"cnumpy.core.multiarray\nfromfile\n.",
        "INST": b"(" + touch + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + touch + b"o.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(" + touch + b"t\x81.",
        "NEWOBJ of ndarray": b"\x80\x02cnumpy\nndarray\n(K\x05\x85t\x81.",
        "call of ndarray": b"cnumpy\nndarray\n(K\x05\x85tR.",
        "subclass of ndarray": b"cnumpy._core.multiarray\n_reconstruct\n(c__builtin__\nlist\n(K\x00tC\x01btR.",
        "ext code": b"\x80\x02\x82\xf0(" + touch + b"tR.",
        "ext code 2": b"\x80\x02\x83\xf0\x00(" + touch + b"tR.",
        "ext code 4": b"\x80\x02\x84\xf0\x00\x00\x00(" + touch + b"tR.",
        "persistent id": b"Pos.system\n.",
        "binary persistent id": b"S'os.system'\nQ.",
        "codec rot13": b"c_codecs\nencode\n(S'abc'\nS'rot13'\ntR.",
        "codec of bytes": b"\x80\x03c_codecs\nencode\n(C\x03abcX\x0b\x00\x00\x00zlib_codec1tR.",
        "codec idna": b"c_codecs\nencode\n(S'abc'\nS'idna'\ntR.",
        "codec default": b"c_codecs\nencode\n(S'abc'\ntR.",
        "codec decode": b"c_codecs\ndecode\n.",
        "bytearray of a size": b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.",
        "bytes of a size": b"c__builtin__\nbytes\n(J\xff\xff\xff\x7ftR.",
        "BUILD of a function": b"\x80\x04c_codecs\nencode\n}X\x09\x00\x00\x00_functioncos\nsystem\nsb.",
        "BUILD of a function, allowed": b"\x80\x04c_codecs\nencode\n}X\x09\x00\x00\x00_functionK\x01sb.",
        "BUILD slots of a function": b"\x80\x04"
        b"c_codecs\nencode\nN}X\x09\x00\x00\x00_functionc__builtin__\nlist\ns\x86b.",
        "BUILD of ndarray": b"\x80\x04cnumpy\nndarray\n}X\x01\x00\x00\x00xK\x01sb.",
        "BUILD of dtype": b"\x80\x04cnumpy\ndtype\n}X\x01\x00\x00\x00xK\x01sb.",
        "setstate by name": b"\x80\x04" + stack_global("numpy", "dtype.__setstate__") + b".",
        "object array from bytes": b"\x80\x04" + ARRAY + b"(K\x01K\x01\x85" + OBJECT_DTYPE + b"\x89C\x08AAAAAAAAtb.",
        "array larger than its bytes": b"\x80\x04" + ARRAY + b"(K\x01K\x09\x85" + FLOAT_DTYPE + b"\x89C\x08AAAAAAAAtb.",
        "array of negative shape": b"\x80\x04" + ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + FLOAT_DTYPE + b"\x89C\x00tb.",
        "object scalar from bytes": b"\x80\x04cnumpy._core.multiarray\nscalar\n(" + OBJECT_DTYPE + b"C\x08AAAAAAAAtR.",
        "dtype with fields": b"\x80\x04"
        + OBJECT_DTYPE
        + b"(K\x03X\x01\x00\x00\x00|NNX\x01\x00\x00\x00aK\x01K\x01K\x00tb.",
        "memo of 32 GB": b"\x80\x04Nr\xff\xff\xff\xffq\x01",
        "setitem of an array": b"\x80\x04" + ARRAY + b"K\x00K\x01s.",
        "structured dtype": b"\x80\x04cnumpy\ndtype\n(X\x02\x00\x00\x00V8I00\nI01\ntR.",
    }


class TestMalice:
    @pytest.mark.parametrize("name", attacks(Path("x")))
    def test_refused_and_nothing_runs(self, tmp_path: Path, name: str) -> None:
        canary, path = tmp_path / "canary", tmp_path / "evil.pkl"
        path.write_bytes(attacks(canary)[name])
        with pytest.raises(MsekitError) as caught:
            map_pickle(path)
        assert caught.value.where == path
        assert not canary.exists()

    @pytest.mark.parametrize("name", ["os.system", "builtins.eval", "numpy.load", "INST", "dotted name"])
    def test_the_refusal_names_what_was_asked_for(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "evil.pkl"
        path.write_bytes(attacks(tmp_path / "canary")[name])
        expected = {"INST": "os.system", "dotted name": "numpy.ndarray.tofile"}.get(name, name)
        with pytest.raises(MsekitError, match=f"'{expected}'"):
            map_pickle(path)

    def test_a_registered_and_cached_extension_does_not_pass(self, tmp_path: Path) -> None:
        canary, path = tmp_path / "canary", tmp_path / "evil.pkl"
        data = b"\x80\x02\x82\xf0(" + f"S'touch {canary}'\n".encode() + b"tR."
        copyreg.add_extension("os", "system", 0xF0)
        try:
            pickle.loads(b"\x80\x02\x82\xf0.")  # puts the function itself into copyreg's cache
            path.write_bytes(data)
            with pytest.raises(MsekitError, match=r"os\.system"):
                map_pickle(path)
            assert not canary.exists()
            pickle.loads(data)  # the attack is real: the standard unpickler runs it
            assert canary.exists()
        finally:
            copyreg.remove_extension("os", "system", 0xF0)

    def test_the_canary_works(self, tmp_path: Path) -> None:
        pickle.loads(attacks(tmp_path / "canary")["os.system"])
        assert (tmp_path / "canary").exists()

    def test_objects_inside_an_object_array_are_checked(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.system, (f"touch {tmp_path / 'canary'}",)

        with pytest.raises(MsekitError, match="system"):
            map_pickle(write(tmp_path / "x.pkl", {"raw_text": np.array([Evil()], dtype=object)}))
        assert not (tmp_path / "canary").exists()


def msa_spec(path: Path, **changes: Any) -> DatasetSpec:
    return DatasetSpec(
        **{"name": "toy", "task": "msa", "layout": "msa-pickle", "range": (-3, 3), "source": path, **changes}
    )


def msa_split(samples: int = 3, **changes: Any) -> dict[str, Any]:
    split = {
        "raw_text": np.array([f"text {number}" for number in range(samples)]),
        "audio": np.arange(samples * 8, dtype=np.float64).reshape(samples, 4, 2),
        "vision": np.ones((samples, 3, 5), dtype=np.float32),
        "audio_lengths": [2] * samples,
        "vision_lengths": np.full(samples, 3),
        "id": [f"v$_${number}" for number in range(samples)],
        "regression_labels": np.linspace(-1, 1, samples, dtype=np.float32),
        "annotations": ["Positive"] * samples,
    }
    split.update(changes)
    return {key: value for key, value in split.items() if value is not ...}


def msa_rows(tmp_path: Path, spec_changes: dict[str, Any] | None = None, **changes: Any) -> list[Row]:
    path = write(tmp_path / "toy.pkl", {"train": msa_split(**changes)})
    return list(PublishedSet(msa_spec(path, **(spec_changes or {}))).rows("train"))


class TestMsa:
    def test_rows(self, tmp_path: Path) -> None:
        rows = msa_rows(tmp_path)
        assert [row.id for row in rows] == ["v$_$0", "v$_$1", "v$_$2"]
        assert [type(row.text) for row in rows] == [str] * 3
        assert [row.label for row in rows] == [-1.0, 0.0, 1.0]
        assert rows[1].audio is not None
        assert rows[1].audio.tolist() == [[8, 9], [10, 11]]
        assert type(rows[1].audio) is np.ndarray
        assert rows[1].vision is not None
        assert rows[1].vision.shape == (3, 5)

    def test_float32_labels_keep_their_published_digits(self, tmp_path: Path) -> None:
        labels = np.array([-0.4, 0.4, 1.8], dtype=np.float32)
        assert [row.label for row in msa_rows(tmp_path, regression_labels=labels)] == [-0.4, 0.4, 1.8]

    def test_absent_keys_and_lengths(self, tmp_path: Path) -> None:
        rows = msa_rows(tmp_path, vision=..., vision_lengths=..., audio_lengths=..., id=...)
        assert rows[2].vision is None
        assert rows[2].audio is not None
        assert len(rows[2].audio) == 4
        assert rows[2].id == "train-000002"
        assert [row.audio is None for row in msa_rows(tmp_path, audio_lengths=[0, 1, 4])] == [True, False, False]

    def test_a_list_or_object_array_of_sequences(self, tmp_path: Path) -> None:
        ragged = [np.zeros((length, 2)) for length in (1, 2, 5)]
        boxed = np.empty(3, dtype=object)
        boxed[:] = ragged
        for audio in (ragged, boxed):
            rows = msa_rows(tmp_path, audio=audio, audio_lengths=...)
            assert [len(row.audio) for row in rows if row.audio is not None] == [1, 2, 5]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"regression_labels": ...}, "'regression_labels' is missing"),
            ({"raw_text": ...}, "'raw_text' is missing"),
            ({"raw_text": "one"}, "'raw_text' is a str"),
            ({"raw_text": [1, 2, 3]}, "'raw_text' is a int.*row 0"),
            ({"raw_text": ["\ud800", "", ""]}, "not valid text.*row 0"),
            ({"regression_labels": [0.0, 3.1, 0.0]}, "label 3.1 is outside.*row 1"),
            ({"regression_labels": [0.0, 0.0, float("nan")]}, "not a finite number.*row 2"),
            ({"regression_labels": [0.0, True, 1.0]}, "not a finite number.*row 1"),
            ({"regression_labels": ["joy"] * 3}, "not a finite number.*row 0"),
            ({"regression_labels": [0.0]}, "has 1 entries, 'raw_text' has 3"),
            ({"audio": np.zeros((3, 2))}, r"'audio' has shape \(3, 2\)"),
            ({"audio": np.zeros((3, 2, 2, 2))}, "'audio' has shape"),
            ({"audio": np.full((3, 4, 2), "x")}, "holds <U1"),
            ({"audio": np.zeros((3, 4, 0))}, "without features"),
            ({"audio": 5}, "'audio' is a int"),
            ({"audio": np.array(5.0)}, "'audio' has shape"),
            ({"audio": [np.zeros((4, 2))] * 2 + [np.zeros(2)]}, r"'audio' has shape \(2,\).*row 2"),
            ({"audio": [[[1.0], [1.0, 2.0]]] * 3, "audio_lengths": ...}, "not an array"),
            ({"audio_lengths": [2, 5, 2]}, "is 5, but it has 4 frames.*row 1"),
            ({"audio_lengths": [2, -1, 2]}, "is -1, not a number of frames.*row 1"),
            ({"audio_lengths": [2, 1.5, 2]}, "is 1.5, not a number of frames.*row 1"),
            ({"audio_lengths": [float("inf")] * 3}, "not a number of frames|but it has"),
        ],
    )
    def test_flaws_are_named(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(MsekitError, match=message) as caught:
            msa_rows(tmp_path, **changes)
        assert "toy.pkl" in str(caught.value)
        assert "train" in str(caught.value)

    def test_the_file_is_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "toy.pkl", {split: msa_split() for split in ("train", "valid", "test")})
        calls: list[Path] = []
        monkeypatch.setattr(
            "msekit.data.readers.published.map_pickle", lambda path: calls.append(path) or map_pickle(path)
        )
        published = PublishedSet(msa_spec(path))
        assert published.source_files == [path]
        assert calls == []
        assert [len(list(published.rows(split))) for split in ("train", "valid", "test")] == [3, 3, 3]
        assert calls == [path]

    def test_where_the_file_is_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(MsekitError, match=r"no such file.*\.pkl"):
            PublishedSet(msa_spec(tmp_path))
        with pytest.raises(MsekitError, match="--source"):
            PublishedSet(DATASETS["mosei"])
        single = write(tmp_path / "one.pkl", {"train": msa_split()})
        assert PublishedSet(msa_spec(tmp_path)).source_files == [single]
        two = write(tmp_path / "two.pkl", {"train": msa_split()})
        with pytest.raises(MsekitError, match=r"one\.pkl, two\.pkl"):
            PublishedSet(msa_spec(tmp_path))
        assert PublishedSet(msa_spec(tmp_path, files="two.pkl")).source_files == [two]
        with pytest.raises(MsekitError, match=r"no such file.*three\.pkl"):
            PublishedSet(msa_spec(tmp_path, files="three.pkl"))
        with pytest.raises(MsekitError, match=r"'test' is missing.*train"):
            PublishedSet(msa_spec(single)).rows("test")
        with pytest.raises(MsekitError, match="holds a list"):
            PublishedSet(msa_spec(write(tmp_path / "l.pkl", [1]))).rows("train")

    def test_the_other_mosei_is_refused(self, tmp_path: Path) -> None:
        split = msa_split(audio=np.zeros((3, 4, 5)), vision=np.zeros((3, 3, 35)))
        spec = resolve_dataset("mosei", write(tmp_path / "unaligned_50.pkl", {"train": split}))
        with pytest.raises(MsekitError, match=r"5 features per frame, 'mosei' has 74.*width 5 and 74"):
            list(PublishedSet(spec).rows("train"))


def erc_spec(folder: Path, **changes: Any) -> DatasetSpec:
    fields = {"name": "toy", "task": "erc", "layout": "erc-pickle", "labels": ("joy", "anger"), "source": folder}
    return DatasetSpec(**{**fields, **changes})


def erc_row(label: object = "anger", **changes: Any) -> dict[str, Any]:
    features = {
        "text": np.str_("hello"),
        "audio": np.arange(8, dtype=np.float16).reshape(4, 2),
        "video": np.ones((2, 3), dtype=np.float32),
        "audio_len": np.int64(3),
        "video_len": 0,
    }
    features.update(changes)
    return {"features": {key: value for key, value in features.items() if value is not ...}, "label": label}


def erc_rows(folder: Path, samples: object, **changes: Any) -> list[Row]:
    for split in ("train", "valid", "test"):
        write(folder / f"toy_{split}.pkl", samples)
    return list(PublishedSet(erc_spec(folder, **changes)).rows("train"))


class TestErc:
    def test_rows(self, tmp_path: Path) -> None:
        extra = {**erc_row("joy"), "id": np.str_("d0"), "speaker": "Ross", "dialogue_id": 4, "utterance_id": 1}
        first, second = erc_rows(tmp_path, [erc_row(), extra])
        assert (first.id, first.text, first.label, first.speaker) == ("train-000000", "hello", 1.0, None)
        assert (second.id, second.label, second.speaker, second.dialogue_id) == ("d0", 0.0, "Ross", "4")
        assert first.audio is not None
        assert first.audio.shape == (3, 2)
        assert first.vision is None

    @pytest.mark.parametrize("label", ["anger", np.str_("anger"), b"anger", 1, np.int64(1), "1", 1.0, "cross"])
    def test_ways_to_write_a_label(self, tmp_path: Path, label: object) -> None:
        assert erc_rows(tmp_path, [erc_row(label)], aliases={"cross": "anger"})[0].label == 1.0

    @pytest.mark.parametrize("label", ["Anger", 2, -1, "2", 0.5, True, "", float("nan"), [1], "x" * 10_000])
    def test_an_unknown_label_is_named(self, tmp_path: Path, label: object) -> None:
        with pytest.raises(MsekitError, match=r"unknown label .*row 1.*0 joy, 1 anger") as caught:
            erc_rows(tmp_path, [erc_row(), erc_row(label)])
        assert len(str(caught.value)) < 1000

    def test_absent_features(self, tmp_path: Path) -> None:
        row = erc_rows(tmp_path, [erc_row(audio=..., video=None, text="")])[0]
        assert (row.audio, row.vision, row.text) == (None, None, "")
        row = erc_rows(tmp_path, [erc_row(audio_len=..., video_len=...)])[0]
        assert row.audio is not None
        assert len(row.audio) == 4

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            ({}, "holds a dict, not a list"),
            ([1], "row holds a int.*row 0"),
            ([{"label": "joy"}], "'features' is missing.*row 0"),
            ([{"features": {}}], "'label' is missing.*row 0"),
            ([{"features": [], "label": "joy"}], "'features' holds a list"),
            ([erc_row(text=...)], "'text' is missing.*row 0"),
            ([erc_row(), erc_row(audio=np.zeros(4))], r"'audio' has shape \(4,\).*row 1"),
            ([erc_row(audio_len=5)], "is 5, but it has 4 frames.*row 0"),
            ([erc_row(video=np.zeros((1, 2), dtype=complex))], "'video' holds complex128"),
        ],
    )
    def test_flaws_are_named(self, tmp_path: Path, samples: object, message: str) -> None:
        with pytest.raises(MsekitError, match=message) as caught:
            erc_rows(tmp_path, samples)
        assert "toy_train.pkl" in str(caught.value)

    def test_missing_files_are_listed(self, tmp_path: Path) -> None:
        write(tmp_path / "other_train.pkl", [])
        with pytest.raises(MsekitError, match=r"no such file.*toy_train\.pkl.*toy_valid\.pkl.*toy_test\.pkl"):
            PublishedSet(erc_spec(tmp_path))
        with pytest.raises(MsekitError, match="folder"):
            PublishedSet(erc_spec(tmp_path / "other_train.pkl"))

    def test_an_intensity_file_is_not_an_emotion_file(self, tmp_path: Path) -> None:
        with pytest.raises(MsekitError, match="unknown label"):
            msa_rows(tmp_path, {"task": "erc", "range": None, "labels": ("a", "b")}, regression_labels=[0.3, 1, 1])


@needs_real
class TestReal:
    def test_ravdess(self) -> None:
        rows = list(PublishedSet(resolve_dataset(str(REAL / "ravdess/ravdess.yaml"))).rows("valid"))
        assert len(rows) == 120
        assert {row.audio.dtype.name for row in rows if row.audio is not None} == {"float16"}
        assert len({len(row.audio) for row in rows if row.audio is not None}) > 10
        assert {row.vision.shape for row in rows if row.vision is not None} == {(1, 35)}

    def test_meld6(self) -> None:
        spec = resolve_dataset(str(REAL / "meld6/meld6.yaml"))
        for split, count, broken in (("train", 3452, 111), ("valid", 428, 13), ("test", 476, 22)):
            rows = list(PublishedSet(spec).rows(split))
            assert len(rows) == count
            assert sum(row.audio is not None and not np.isfinite(row.audio).all() for row in rows) == broken
            assert all(row.speaker and row.dialogue_id for row in rows)

    def test_mosi_utt(self) -> None:
        published = PublishedSet(resolve_dataset(str(REAL / "mosi_utt/mosi_utt.yaml")))
        assert [len(list(published.rows(split))) for split in ("train", "valid", "test")] == [1058, 223, 229]
        row = next(published.rows("train"))
        assert row.vision is None
        assert row.audio is not None
        assert row.audio.shape == (1, 73)
        assert row.label == -0.4

    def test_truncated_copies(self, tmp_path: Path) -> None:
        data = (REAL / "mosi_utt/mosi_utt.pkl").read_bytes()
        for cut in (*range(0, 400, 13), *np.linspace(400, len(data) - 1, 40, dtype=int)):
            (tmp_path / "x.pkl").write_bytes(data[:cut])
            with pytest.raises(MsekitError, match="truncated or not a pickle"):
                map_pickle(tmp_path / "x.pkl")


def test_importing_loads_no_torch() -> None:
    code = (
        "import sys, msekit.data.cache.cache as _; sys.exit(bool({'torch', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert struct.calcsize("P") == 8, "the attacks on memory above assume 64 bits"

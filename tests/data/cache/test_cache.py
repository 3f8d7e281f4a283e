"""The Arrow cache: what goes in comes out, whole or not at all, whoever builds it."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msekit.data.cache import digests
from msekit.data.cache.cache import Cache, open_cache, prepare
from msekit.data.cache.split_table import CacheSettings
from msekit.data.cache.write_split import Moments
from msekit.data.catalogue import DATASETS, DatasetSpec, resolve_dataset
from msekit.data.readers.published import PublishedSet
from msekit.data.readers.synthetic import synthetic_rows
from msekit.errors import MsekitError
from msekit.paths import cache_root

SPLITS = ("train", "valid", "test")
REAL = Path(os.environ.get("MSEKIT_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"real data not found at {REAL} (MSEKIT_TEST_DATA)")


def msa_split(samples: int, seed: int = 0, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    split = {
        "raw_text": [f"text {number}" for number in range(samples)],
        "audio": rng.normal(5, 2, (samples, 6, 3)),
        "vision": rng.normal(0, 1, (samples, 4, 2)).astype(np.float32),
        "audio_lengths": rng.integers(0, 7, samples),
        "vision_lengths": rng.integers(0, 5, samples),
        "regression_labels": rng.uniform(-1, 1, samples),
    }
    split.update(changes)
    return {key: value for key, value in split.items() if value is not ...}


def toy(folder: Path, sizes: tuple[int, ...] = (40, 9, 7), **changes: Any) -> DatasetSpec:
    """An intensity set on disk; `changes` are DatasetSpec fields, or `splits`: {split: columns} to replace."""
    splits = changes.pop("splits", {})
    content = {name: splits.get(name) or msa_split(size, size) for name, size in zip(SPLITS, sizes, strict=True)}
    path = folder / "toy.pkl"
    path.write_bytes(pickle.dumps(content))
    fields = {"name": "toy", "task": "msa", "layout": "msa-pickle", "range": (-3, 3), "source": path}
    return DatasetSpec(**{**fields, **changes})


def folders(root: Path) -> list[str]:
    """What lies in the cache root, without lock files and the memo of hashes."""
    names = (path.name for path in (root / "datasets").iterdir())
    return sorted(name for name in names if not name.endswith(".lock") and name != "hashes.json")


def same(cache: Cache, spec: DatasetSpec, dtype: str = "float32") -> None:
    """Every row of the cache is the published row."""
    for split in SPLITS:
        table = cache.split(split)
        rows = list(synthetic_rows(spec.name, split) if spec.layout == "synthetic" else PublishedSet(spec).rows(split))
        assert len(table) == len(rows) == cache.info.splits[split].samples
        assert table.ids == [row.id for row in rows]
        assert table.texts == [row.text for row in rows]
        assert table.labels.tolist() == [row.label for row in rows]
        assert table.speakers == [row.speaker for row in rows]
        assert table.dialogues == [row.dialogue_id for row in rows]
        for index, row in enumerate(rows):
            for stored, length, width, frames in (
                (table.audio(index), table.audio_lengths[index], cache.info.audio.width, row.audio),
                (table.vision(index), table.vision_lengths[index], cache.info.vision.width, row.vision),
            ):
                expected = np.zeros((0, width)) if frames is None else frames
                assert stored.shape == (length, width) == expected.shape
                assert stored.dtype == np.dtype(dtype)
                bad = ~np.isfinite(expected)
                assert np.isnan(stored[bad]).all()
                np.testing.assert_array_equal(stored[~bad], expected[~bad].astype(dtype))


class TestContent:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_rows_come_back(self, tmp_path: Path, dtype: Any) -> None:
        spec = toy(tmp_path)
        cache = prepare(spec, CacheSettings(dtype=dtype), tmp_path / "root")
        same(cache, spec, dtype)
        assert cache.info.settings.dtype == dtype
        assert cache.path.name == f"toy-{cache.info.fingerprint[:16]}"
        same(open_cache(cache.path), spec, dtype)

    @pytest.mark.parametrize("name", ["synthetic-erc", "synthetic-msa"])
    def test_synthetic_sets(self, tmp_path: Path, name: str) -> None:
        cache = prepare(DATASETS[name], root=tmp_path)
        same(cache, DATASETS[name])
        assert (cache.info.audio.width, cache.info.vision.width, cache.info.warnings) == (16, 8, [])

    def test_several_record_batches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("msekit.data.cache.write_split._CHUNK_BYTES", 500)
        spec = toy(tmp_path)
        same(prepare(spec, root=tmp_path), spec)

    def test_views_do_not_copy(self, tmp_path: Path) -> None:
        table = prepare(DATASETS["synthetic-erc"], root=tmp_path).split("train")
        first = table.audio(5)
        assert np.shares_memory(first, table.audio(5))
        assert not first.flags.writeable
        start = time.perf_counter()
        for index in range(len(table)):
            table.audio(index), table.vision(index)
        assert time.perf_counter() - start < 0.2

    def test_progress_counts_rows(self, tmp_path: Path) -> None:
        seen: list[tuple[str, int]] = []
        prepare(toy(tmp_path), root=tmp_path, progress=lambda split, rows: seen.append((split, rows)))
        assert seen == [(split, row + 1) for split, size in zip(SPLITS, (40, 9, 7), strict=True) for row in range(size)]

    def test_root_comes_from_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path / "here"))
        assert prepare(toy(tmp_path)).path.parent == tmp_path / "here" / "datasets"
        monkeypatch.delenv("MSEKIT_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
        assert cache_root() == tmp_path / "shared" / "msekit"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_root() == Path.home() / ".cache" / "msekit"


class TestStatistics:
    def test_against_numpy_over_real_finite_train_frames(self, tmp_path: Path) -> None:
        columns = msa_split(40, 1)
        columns["audio"][3, 0, 1] = np.nan
        columns["audio"][4, 0] = [np.inf, -np.inf, 1e4]
        columns["audio_lengths"][3:5] = 2
        columns["audio"][5, -1] = 1e9  # padding: row 5 is shorter
        columns["audio_lengths"][5] = 4
        columns["vision"][:, :, 1] = 0.1
        cache = prepare(toy(tmp_path, splits={"train": columns}), root=tmp_path)
        pairs = zip(columns["audio"], columns["audio_lengths"], strict=True)
        frames = np.concatenate([audio[:length] for audio, length in pairs]).astype(np.float32).astype(np.float64)
        frames[~np.isfinite(frames)] = np.nan
        info = cache.info.audio
        np.testing.assert_allclose(info.mean, np.nanmean(frames, axis=0), rtol=1e-12)
        np.testing.assert_allclose(info.std, np.nanstd(frames, axis=0), rtol=1e-12)
        assert (info.nonfinite["train"], info.nonfinite_rows["train"]) == (3, 2)
        assert info.longest == max(columns["audio_lengths"].max(), cache.split("valid").audio_lengths.max())
        assert info.absent["train"] == int((columns["audio_lengths"] == 0).sum())
        assert cache.info.vision.std[1] == 1.0

    def test_far_from_zero_and_without_finite_values(self) -> None:
        moments = Moments(3)
        rng = np.random.default_rng(0)
        parts = [rng.normal(1e6, 1e-2, (length, 3)) for length in rng.integers(1, 9, 200)]
        for part in parts:
            part[:, 2] = np.nan
            moments.add(part)
        expected = np.concatenate(parts)[:, :2].std(axis=0)
        np.testing.assert_allclose(moments.std()[:2], expected, rtol=1e-6)
        assert (moments.mean[2], moments.std()[2]) == (0.0, 1.0)

    def test_values_beyond_the_dtype_are_cut_and_counted(self, tmp_path: Path) -> None:
        audio = np.full((40, 6, 3), 1e5)
        columns = msa_split(40, audio=audio, audio_lengths=np.ones(40, dtype=int))
        cache = prepare(toy(tmp_path, splits={"train": columns}), CacheSettings(dtype="float16"), tmp_path)
        assert cache.split("train").audio(0).max() == np.finfo(np.float16).max
        assert cache.info.audio.nonfinite["train"] == 0
        assert cache.info.warnings == ["120 audio values were cut to the range of float16"]

    def test_a_modality_that_the_set_lacks(self, tmp_path: Path) -> None:
        splits = {name: msa_split(5, vision=..., vision_lengths=...) for name in SPLITS}
        spec = toy(tmp_path, splits=splits)
        cache = prepare(spec, root=tmp_path)
        same(cache, spec)
        info = cache.info.vision
        assert (info.width, info.mean, info.std, info.longest) == (0, [], [], 0)
        assert info.absent == {"train": 5, "valid": 5, "test": 5}
        with pytest.raises(MsekitError, match="vision has no features per frame, 'toy' has 35"):
            prepare(spec.model_copy(update={"vision_width": 35}), root=tmp_path)


class TestRefusals:
    def test_empty_and_missing_splits(self, tmp_path: Path) -> None:
        empty = {"raw_text": [], "regression_labels": []}
        with pytest.raises(MsekitError, match="split 'valid' is empty"):
            prepare(toy(tmp_path, splits={"valid": empty}), root=tmp_path)
        spec = toy(tmp_path)
        spec.source.write_bytes(pickle.dumps({"train": msa_split(3), "valid": msa_split(3)}))  # type: ignore[union-attr]
        with pytest.raises(MsekitError, match="split 'test' is missing"):
            prepare(spec, root=tmp_path)
        assert folders(tmp_path) == []

    def test_a_width_that_changes(self, tmp_path: Path) -> None:
        splits = {"valid": msa_split(3, audio=np.zeros((3, 6, 4)), audio_lengths=[0, 0, 6])}
        with pytest.raises(MsekitError, match=r"4 features per frame, earlier rows have 3.*valid row 2"):
            prepare(toy(tmp_path, splits=splits), root=tmp_path)

    def test_a_label_out_of_range(self, tmp_path: Path) -> None:
        splits = {"test": msa_split(3, regression_labels=[0.0, 0.5, -3.2])}
        with pytest.raises(MsekitError, match=r"-3.2 is outside the range.*test row 2"):
            prepare(toy(tmp_path, splits=splits), root=tmp_path)
        assert folders(tmp_path) == []

    def test_the_other_mosei(self, tmp_path: Path) -> None:
        content = {name: msa_split(4, audio=np.zeros((4, 6, 5)), vision=np.zeros((4, 4, 35))) for name in SPLITS}
        (tmp_path / "unaligned_50.pkl").write_bytes(pickle.dumps(content))
        spec = resolve_dataset("mosei", tmp_path)
        with pytest.raises(MsekitError, match="width 5 and 74"):
            prepare(spec, root=tmp_path)
        cache = prepare(spec.model_copy(update={"audio_width": None}), root=tmp_path)
        assert "train has 4 samples, 'mosei' as published has 16326" in cache.info.warnings
        with pytest.raises(MsekitError, match="5 features per frame, 'mosei' has 74"):
            prepare(spec, root=tmp_path)  # a cache built without the check does not get around it

    def test_a_root_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(MsekitError, match=r"cannot be written.*MSEKIT_CACHE"):
            prepare(toy(tmp_path), root=tmp_path / "file")

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "the disk is full on device")

        with monkeypatch.context() as patch:
            patch.setattr("datasets.arrow_writer.ArrowWriter.write_table", full)
            with pytest.raises(MsekitError, match="the disk is full"):
                prepare(toy(tmp_path), root=tmp_path)
        assert folders(tmp_path) == []
        assert prepare(toy(tmp_path), root=tmp_path).info.splits["train"].samples == 40

    def test_unknown_splits_and_folders(self, tmp_path: Path) -> None:
        with pytest.raises(MsekitError, match="no such split"):
            prepare(toy(tmp_path), root=tmp_path).split("dev")
        with pytest.raises(MsekitError, match="no cache"):
            open_cache(tmp_path)


class TestReuse:
    def test_built_twice_is_byte_identical(self, tmp_path: Path) -> None:
        spec = toy(tmp_path)
        first, second = (prepare(spec, root=tmp_path / name) for name in "ab")
        for name in (*(f"{split}.arrow" for split in SPLITS), "info.json"):
            assert (first.path / name).read_bytes() == (second.path / name).read_bytes()

    def test_an_existing_cache_is_not_touched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = toy(tmp_path)
        before = prepare(spec, root=tmp_path).path.stat().st_mtime_ns
        monkeypatch.setattr("msekit.data.readers.published.map_pickle", None)  # reading the source would fail
        assert prepare(spec, root=tmp_path).path.stat().st_mtime_ns == before

    def test_what_decides_the_rows_decides_the_fingerprint(self, tmp_path: Path) -> None:
        spec = toy(tmp_path)
        first = prepare(spec, root=tmp_path).info.fingerprint
        reworded = spec.model_copy(update={"prompt": "p", "text_limit": 9})
        assert prepare(reworded, root=tmp_path).info.fingerprint == first
        copied = tmp_path / "copy.pkl"
        copied.write_bytes((tmp_path / "toy.pkl").read_bytes())
        assert prepare(spec.model_copy(update={"source": copied}), root=tmp_path).info.fingerprint == first
        assert prepare(spec.model_copy(update={"range": (-4.0, 3.0)}), root=tmp_path).info.fingerprint != first
        assert prepare(spec, CacheSettings(dtype="float16"), tmp_path).info.fingerprint != first
        toy(tmp_path, splits={"test": msa_split(7, seed=99)})  # same size, new content
        assert prepare(spec, root=tmp_path).info.fingerprint != first

    def test_hashes_of_old_files_are_remembered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digests, "_RACY_SECONDS", -1.0)
        spec = toy(tmp_path)
        first = prepare(spec, root=tmp_path)
        real, read = first.path, []
        blocks = digests.blocks
        monkeypatch.setattr(digests, "blocks", lambda path: read.append(path) or blocks(path))
        assert prepare(spec, root=tmp_path).path == real
        assert spec.source not in read
        (tmp_path / "datasets" / "hashes.json").write_text("[broken")
        assert prepare(spec, root=tmp_path).path == real
        assert spec.source in read

    def test_size_warnings_follow_the_description(self, tmp_path: Path) -> None:
        spec = toy(tmp_path)
        assert prepare(spec, root=tmp_path).info.warnings == []
        cache = prepare(spec.model_copy(update={"split_sizes": (40, 10, 7)}), root=tmp_path)
        assert cache.info.warnings == ["valid has 9 samples, 'toy' as published has 10"]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: (path / "train.arrow").write_bytes((path / "train.arrow").read_bytes()[:-9]),
            lambda path: (path / "test.arrow").unlink(),
            lambda path: (path / "info.json").write_text("{"),
            lambda path: rename(path / "info.json"),
            lambda path: flip(path / "valid.arrow"),
            lambda path: flip(path / "info.json"),
        ],
        ids=["cut", "lost", "info cut", "info changed", "byte flipped", "info flipped"],
    )
    def test_a_damaged_cache_is_built_again(self, tmp_path: Path, damage: Any) -> None:
        spec = toy(tmp_path)
        first = prepare(spec, root=tmp_path)
        good = {path.name: path.read_bytes() for path in first.path.iterdir()}
        damage(first.path)
        with pytest.raises(MsekitError, match="damaged"):
            open_cache(first.path)
        second = prepare(spec, root=tmp_path)
        assert {path.name: path.read_bytes() for path in second.path.iterdir()} == good
        assert folders(tmp_path) == [second.path.name]


def rename(path: Path) -> None:
    """Valid JSON of another content."""
    path.write_text(path.read_text().replace('"name": "toy"', '"name": "tot"'))


def flip(path: Path) -> None:
    """Change one bit in the middle, keeping size and time stamps."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


BUILD = """
import sys, time
from pathlib import Path
from msekit.data.cache.cache import prepare
from msekit.data.catalogue import DATASETS
def slow(split, rows):
    if split == 'valid' and rows == 50:
        sys.stderr.write('midway')
        sys.stderr.flush()
        time.sleep(float(sys.argv[2]))
cache = prepare(DATASETS['synthetic-erc'], root=Path(sys.argv[1]), progress=slow)
sys.stdout.write(f'{cache.path} {cache.info.checksum}')
"""


def start(root: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(root), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.multiprocess
class TestProcesses:
    def test_a_killed_build_leaves_nothing_half_written(self, tmp_path: Path) -> None:
        process = start(tmp_path, 60)
        assert process.stderr is not None
        assert process.stderr.read(6) == "midway"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        left = folders(tmp_path)
        assert len(left) == 1
        assert left[0].startswith(".synthetic-erc-")
        cache = prepare(DATASETS["synthetic-erc"], root=tmp_path)
        assert folders(tmp_path) == [cache.path.name]
        same(cache, DATASETS["synthetic-erc"])

    def test_leftovers_of_other_sets_go_too_unless_being_built(self, tmp_path: Path) -> None:
        (tmp_path / "datasets" / ".old-0123.build-1-2").mkdir(parents=True)
        process = start(tmp_path, 3)
        assert process.stderr is not None
        assert process.stderr.read(6) == "midway"
        prepare(toy(tmp_path), root=tmp_path)
        assert folders(tmp_path)[0].startswith(".synthetic-erc-")
        _, error = process.communicate()
        assert process.returncode == 0, error
        assert [name.rpartition("-")[0] for name in folders(tmp_path)] == ["synthetic-erc", "toy"]

    def test_two_builders_end_with_one_good_cache(self, tmp_path: Path) -> None:
        processes = [start(tmp_path, 0.5) for _ in range(2)]
        outputs = [process.communicate() for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        assert len({out for out, _ in outputs}) == 1
        assert sorted(error for _, error in outputs) == ["", "midway"]
        assert len(folders(tmp_path)) == 1
        same(prepare(DATASETS["synthetic-erc"], root=tmp_path), DATASETS["synthetic-erc"])


KILLED = """
import os, signal, sys
from pathlib import Path
from msekit.data.cache.cache import prepare
from msekit.data.catalogue import DatasetSpec
import datasets.arrow_writer, pyarrow
spec = DatasetSpec.model_validate_json(sys.argv[1])
first, step, damage = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "fcntl.flock", "fcntl.lockf")
moment = first
while True:
    root = Path(sys.argv[5]) / str(moment)
    if damage:
        path = prepare(spec, root=root).path
        (path / "valid.arrow").write_bytes(b"damaged")
    child = os.fork()
    if child == 0:
        seen = 0
        def kill(event, arguments):
            global seen
            if event in EVENTS and (event != "open" or str(root) in str(arguments[0])):
                seen += 1
                if seen == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(kill)
        prepare(spec, root=root)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, status
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    moment += step
sys.stdout.write(str(moment))
"""


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("damage", ["", "damaged"])
def test_a_build_killed_at_any_moment(tmp_path: Path, damage: str) -> None:
    """Killed at every file operation in turn: what is left is a whole cache or none, and the next run succeeds."""
    spec = toy(tmp_path)
    good = {path.name: path.read_bytes() for path in prepare(spec, root=tmp_path / "good").path.iterdir()}
    roots = tmp_path / "roots"
    command = [sys.executable, "-c", KILLED, spec.model_dump_json(), "1", "1" if damage else "3", damage, str(roots)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    moments = int(done.stdout)
    assert moments > 12
    for moment in range(1, moments):
        root = roots / str(moment)
        for path in root.glob("datasets/toy-*"):
            left = {file.name: file.read_bytes() for file in path.iterdir()}
            if damage:
                left["valid.arrow"] = left["valid.arrow"].replace(b"damaged", good["valid.arrow"])
            assert left == good, f"a half-written cache after a kill at operation {moment}"
        cache = prepare(spec, root=root)
        assert {path.name: path.read_bytes() for path in cache.path.iterdir()} == good
        other = prepare(spec, CacheSettings(dtype="float16"), root)
        assert folders(root) == sorted([cache.path.name, other.path.name]), "the next build leaves no leftovers"


@needs_real
class TestReal:
    def test_ravdess(self, tmp_path: Path) -> None:
        spec = resolve_dataset(str(REAL / "ravdess" / "ravdess.yaml"))
        cache = prepare(spec, root=tmp_path)
        same(cache, spec)
        info = cache.info
        assert [info.splits[split].samples for split in SPLITS] == [960, 120, 120]
        assert (info.audio.width, info.vision.width, info.audio.longest) == (40, 35, 263)
        assert info.splits["test"].label_counts == dict.fromkeys(spec.labels or (), 16) | {"neutral": 8}
        assert info.warnings == []

    def test_meld6(self, tmp_path: Path) -> None:
        spec = resolve_dataset(str(REAL / "meld6" / "meld6.yaml"))
        cache = prepare(spec, root=tmp_path)
        same(cache, spec)
        info = cache.info
        assert info.audio.nonfinite_rows == {"train": 111, "valid": 13, "test": 22}
        assert info.vision.absent == {"train": 303, "valid": 28, "test": 40}
        assert np.isfinite(info.audio.mean).all()
        assert (np.array(info.audio.std) > 0).all()
        assert list(info.splits["train"].label_counts) == list(spec.labels or ())
        assert cache.split("train").speakers[0] == "Chandler"

    def test_mosi_utt(self, tmp_path: Path) -> None:
        spec = resolve_dataset(str(REAL / "mosi_utt" / "mosi_utt.yaml"))
        cache = prepare(spec, root=tmp_path)
        same(cache, spec)
        assert (cache.info.audio.width, cache.info.vision.width) == (73, 0)
        assert cache.split("test").vision(0).shape == (0, 0)


def test_a_remembered_digest_that_was_damaged_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make another data set of equal files, and a run that goes on would be refused."""
    monkeypatch.setattr(digests, "_RACY_SECONDS", -1.0)
    spec = toy(tmp_path)
    first = prepare(spec, root=tmp_path / "root").info.fingerprint
    memo = tmp_path / "root" / "datasets" / "hashes.json"
    whole = memo.read_text()
    digest = re.findall(r'"([0-9a-f]{64})"', whole)[0]
    for damaged in (
        whole.replace(digest, "0" * 64),
        whole.replace(digest, f"1{digest[1:]}"),
        "[" * 10_000,
        "[1]",
        "{}",
    ):
        memo.write_text(damaged)
        assert prepare(spec, root=tmp_path / "root").info.fingerprint == first
        assert memo.read_text() == whole, "it is written anew"
    read: list[Path] = []
    monkeypatch.setattr(digests, "blocks", lambda file: read.append(file) or iter(()))
    prepare(spec, root=tmp_path / "root")
    assert read == [], "an unchanged file is not read again"

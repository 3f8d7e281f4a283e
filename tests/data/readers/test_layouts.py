"""Every catalogue entry's published layout, at its shapes, prepares under its name; the wrong file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import numpy as np
import pytest
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.cache.cache import prepare
from msekit.data.catalogue import DATASETS, SPLITS, resolve_dataset
from msekit.data.verify import verify
from msekit.errors import MsekitError

PUBLISHED = ("mosei", "sims-v2", "meld", "cherma", "mosi", "sims", "iemocap")


def test_the_catalogue_has_them_all() -> None:
    assert set(PUBLISHED) == {name for name, spec in DATASETS.items() if spec.layout != "synthetic"}
    assert set(layouts.PADDED) == set(PUBLISHED)


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts(tmp_path: Path, name: str, generation: int) -> None:
    spec = resolve_dataset(name, tmp_path)
    layouts.write(tmp_path, spec, generation)
    file = next(tmp_path.glob("*.pkl"))
    assert (b"numpy.core" in file.read_bytes()) == (generation == 1)
    outcome = verify(spec)
    assert outcome.verdict == "usable with warnings", outcome.findings
    assert [outcome.splits[split].samples for split in SPLITS] == [4, 2, 3]
    cache = prepare(spec, root=tmp_path)
    info = cache.info
    assert (info.audio.width, info.vision.width) == (spec.audio_width, spec.vision_width)
    assert info.splits["train"].samples == 4
    if spec.split_sizes:
        assert f"train has 4 samples, '{name}' as published has {spec.split_sizes[0]}" in info.warnings
    rows = list(prepare(spec, root=tmp_path).split("test").texts)
    assert rows == [f"test 文 {number}" for number in range(3)]


def test_both_generations_give_the_same_rows(tmp_path: Path) -> None:
    caches = []
    for generation in (1, 2):
        folder = tmp_path / str(generation)
        folder.mkdir()
        spec = resolve_dataset("mosi", folder)
        layouts.write(folder, spec, generation)
        caches.append(prepare(spec, root=folder))
    for split in SPLITS:
        files = [(cache.path / f"{split}.arrow").read_bytes() for cache in caches]
        assert files[0] == files[1]


def test_the_other_mosei_is_refused_with_the_reason(tmp_path: Path) -> None:
    spec = resolve_dataset("mosei", tmp_path)
    layouts.write(tmp_path, spec.model_copy(update={"audio_width": 5}))
    outcome = verify(spec)
    assert outcome.verdict == "unusable"
    assert "'audio' has 5 features per frame, 'mosei' has 74" in outcome.findings[0].what
    assert outcome.findings[0].rows[0] == "0 (unaligned_50.pkl, train row 0, key 'audio')"
    for command in ("prepare", "verify"):
        result = CliRunner().invoke(app, ["data", command, "mosei", "--source", str(tmp_path)])
        assert isinstance(result.exception, MsekitError)
        assert "5 features per frame, 'mosei' has 74" in str(result.exception)
    with pytest.raises(MsekitError, match="width 5 and 74"):
        prepare(spec, root=tmp_path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_mapped_arrays_are_views_of_the_file(tmp_path: Path, protocol: int) -> None:
    from msekit.data.readers.unpickle import map_pickle

    array = np.arange(6000, dtype=np.float64).reshape(2, 30, 100)
    values = {"c": array, "f": np.asfortranarray(array), "big": array.astype(">f4"), "same": None}
    values["same"] = values["c"]
    path = tmp_path / "x.pkl"
    path.write_bytes(layouts.dumps(values, 1, protocol))
    content, pages = map_pickle(path)
    assert isinstance(content, dict)
    for key, value in values.items():
        np.testing.assert_array_equal(content[key], value)
        assert not content[key].flags.writeable
    assert content["same"] is content["c"]
    whole = np.frombuffer(pages, dtype=np.uint8)
    assert np.shares_memory(content["c"], whole) == (protocol >= 3)  # before, numpy writes bytes as text


class TestVerify:
    def test_what_is_found_and_where(self, tmp_path: Path) -> None:
        spec = resolve_dataset("mosi", tmp_path)
        content = {split: layouts.msa_columns(spec, 6, split) for split in SPLITS}
        train, test = content["train"], content["test"]
        train["raw_text"], test["raw_text"] = train["raw_text"].tolist(), test["raw_text"].tolist()
        train["audio"][1, 0, 2], train["audio"][2, 0, :2] = np.nan, (np.inf, -np.inf)
        train["audio"][3, 0, 0] = 1e300
        train["audio"][:, :, 4] = 0.25
        train["vision"][4] = 0
        train["raw_text"][5] = " "
        train["id"][5] = train["id"][0]
        for key in ("raw_text", "audio", "vision", "audio_lengths", "vision_lengths"):
            test[key][2] = train[key][0]
        content["valid"]["audio_lengths"][3] = 51
        content["valid"]["regression_labels"][4] = np.nan
        (tmp_path / "unaligned_50.pkl").write_bytes(layouts.dumps(content, 2))
        outcome = verify(spec)
        assert outcome.verdict == "unusable"
        seen = {(finding.split, finding.what): finding for finding in outcome.findings}
        errors = {(f.split, f.rows[0].split()[0]): f.what for f in outcome.findings if f.severity == "error"}
        assert "is 51, but it has 50 frames" in errors["valid", "3"]
        assert "not a finite number" in errors["valid", "4"]
        assert outcome.splits["valid"].unusable == 2
        assert seen["train", "audio holds NaN or infinite values"].rows == ["1 (video$_$1)", "2 (video$_$2)"]
        assert seen["train", "audio holds values beyond float32"].rows == ["3 (video$_$3)"]
        assert seen["train", "vision is zero throughout"].rows == ["4 (video$_$4)"]
        assert seen["train", "the text is empty"].rows == ["5 (video$_$0)"]
        assert seen["train", "an id is there twice"].rows == ["5 (video$_$0)"]
        assert seen["test", "the same sample, by content, is in train, too"].rows == ["2 (video$_$2) = 0 (video$_$0)"]
        assert ("train", "audio: 1 of 5 features are constant (4)") in seen
        assert ("train", "6 samples; 'mosi' as published has 1284") in seen
        audio = outcome.splits["train"].audio
        assert (audio.nan, audio.positive_infinite, audio.negative_infinite) == (1, 1, 1)
        assert (audio.beyond_float32, audio.beyond_float16, audio.with_nonfinite) == (1, 1, 2)

    def test_json_alone_on_stdout_and_exit_code(self, tmp_path: Path) -> None:
        spec = resolve_dataset("iemocap", tmp_path)
        layouts.write(tmp_path, spec)
        run = CliRunner().invoke(app, ["data", "verify", "iemocap", "--source", str(tmp_path), "--format", "json"])
        assert run.exit_code == 0
        assert json.loads(run.stdout)["verdict"] == "usable with warnings"
        (tmp_path / "iemocap_valid.pkl").write_bytes(b"\x80\x04]q")
        run = CliRunner().invoke(app, ["data", "verify", "iemocap", "--source", str(tmp_path), "--format", "json"])
        report = json.loads(run.stdout)
        assert isinstance(run.exception, MsekitError)
        assert report["verdict"] == "unusable"
        assert "truncated" in report["findings"][0]["what"]
        assert report["splits"]["test"]["samples"] == 3, "the other splits are still looked at"

    def test_a_missing_modality(self, tmp_path: Path) -> None:
        spec = resolve_dataset("mosi", tmp_path)
        content = {split: layouts.msa_columns(spec, 3, split) for split in SPLITS}
        for columns in content.values():
            del columns["vision"]
        content["train"]["audio_lengths"][1] = 0
        (tmp_path / "unaligned_50.pkl").write_bytes(layouts.dumps(content, 2))
        what = [finding.what for finding in verify(spec).findings]
        assert what[0] == "no sample has vision; 'mosi' has a width of 20"
        assert "audio is absent" in what
        assert verify(spec.model_copy(update={"vision_width": None})).verdict == "usable with warnings"

    def test_a_leak_is_told_when_the_cache_is_built(self, tmp_path: Path) -> None:
        spec = resolve_dataset("mosi", tmp_path)
        content = {split: layouts.msa_columns(spec, 5, "same") for split in SPLITS}
        (tmp_path / "unaligned_50.pkl").write_bytes(layouts.dumps(content, 2))
        warnings = prepare(spec, root=tmp_path).info.warnings
        assert "5 samples of valid are in train, too, by content" in warnings

    @pytest.mark.parametrize("name", ["meld6", "mosi_utt", "ravdess"])
    def test_real_sets(self, test_data: Path, name: str) -> None:
        outcome = verify(resolve_dataset(str(test_data / name / f"{name}.yaml")))
        findings = {(finding.split, finding.what): finding.samples for finding in outcome.findings}
        assert outcome.verdict == "usable with warnings"
        if name == "meld6":
            for split, broken, faceless in (("train", 111, 303), ("valid", 13, 28), ("test", 22, 40)):
                assert findings[split, "audio holds NaN or infinite values"] == broken
                assert findings[split, "vision is absent"] == faceless
            assert findings["train", "the same sample, by content, is earlier in the split"] == 7
        elif name == "mosi_utt":
            assert findings == {(None, "no sample has vision"): 0} | {
                ("train", "audio: 4 of 73 features are constant (36, 37, 38, 39)"): 0
            }
        else:
            assert findings == {("train", "the same sample, by content, is earlier in the split"): 1}


def test_a_split_that_cannot_be_read_names_no_row(tmp_path: Path):
    (tmp_path / "unaligned_50.pkl").write_bytes(b"")
    outcome = verify(DATASETS["mosei"].model_copy(update={"source": tmp_path}))
    assert (outcome.findings[0].samples, outcome.findings[0].rows) == (0, ["unaligned_50.pkl"])
    with pytest.raises(MsekitError, match=r"\(unaligned_50\.pkl\)\. Download"):
        outcome.check()

"""One's own data: the guide's example as it stands, every way to store features, every mistake named."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from msekit.cli.main import app
from msekit.data.cache.cache import prepare
from msekit.data.catalogue import SPLITS, DatasetSpec, resolve_dataset
from msekit.data.readers.open_source import open_source
from msekit.data.readers.rows import Row
from msekit.data.verify import verify
from msekit.errors import MsekitError

GUIDE = Path(__file__).parents[3] / "docs" / "your-data.md"
FRAMES = np.arange(12, dtype=np.float32).reshape(4, 3)


def samples(**changes: Any) -> list[dict[str, Any]]:
    """One sample per split."""
    base = {"text": "well, yes", "label": "joy"}
    rows = [base | {"id": f"s{number}", "split": split} | changes for number, split in enumerate(SPLITS)]
    return [{key: value for key, value in row.items() if value is not ...} for row in rows]


def folder_set(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> DatasetSpec:
    folder.mkdir(exist_ok=True)
    (folder / "samples.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    fields = {"name": "own", "task": "erc", "layout": "folder", "labels": ("joy", "anger"), "source": folder}
    return DatasetSpec(**{**fields, **changes})


def first(spec: DatasetSpec) -> Row:
    return next(iter(open_source(spec).rows("train")))


@pytest.mark.slow
def test_the_guide_builds_a_set_and_trains_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = GUIDE.read_text(encoding="utf-8").split("\n## ")[0]
    blocks = re.findall(r"```(\w*)\n(.*?)```", section, re.S)
    program, commands = (next(text for kind, text in blocks if kind == wanted) for wanted in ("python", ""))
    monkeypatch.chdir(tmp_path)
    exec(compile(program, GUIDE.name, "exec"), {})
    assert commands.count("msekit") == 3
    for line in commands.splitlines():
        words = shlex.split(line.split("#")[0].replace("smollm2-135m", "tiny-llama"))[1:]
        extra = ["--epochs", "2", "--set", "optim.lr=1e-2"] if words[0] == "train" else []
        result = CliRunner().invoke(app, [*words, *extra])
        assert result.exit_code == 0, (line, result.output, result.exception)
    assert (tmp_path / "voices.png").read_bytes().startswith(b"\x89PNG")
    (report,) = tmp_path.glob("runs/*/seed-1111/report.json")
    content = json.loads(report.read_text())
    assert content["dataset"] == "voices"
    assert content["samples"] == 24
    result = CliRunner().invoke(app, ["evaluate", str(report.parent), "--format", "json"])
    assert result.exit_code == 0, "the run remembers what the options said"
    assert json.loads(result.stdout)["metrics"] == content["metrics"]


class TestFolder:
    @pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
    @pytest.mark.parametrize("named", [False, True])
    def test_feature_files(self, tmp_path: Path, suffix: str, named: bool) -> None:
        from safetensors.numpy import save_file

        path = tmp_path / ("features/of it" if named else "audio/s0")
        path = path.with_name(path.name + suffix)
        path.parent.mkdir(parents=True)
        if suffix == ".npy":
            np.save(path, FRAMES)
        elif suffix == ".npz":
            np.savez_compressed(path, audio=np.asfortranarray(FRAMES), vision=FRAMES[0])
        else:
            save_file({"audio": FRAMES, "vision": FRAMES[0]}, path)
        rows = samples(audio=f"features/of it{suffix}", vision=f"features/of it{suffix}") if named else samples()
        row = first(folder_set(tmp_path, rows))
        np.testing.assert_array_equal(row.audio, FRAMES)
        if named:
            np.testing.assert_array_equal(row.vision, FRAMES if suffix == ".npy" else FRAMES[:1])
        else:
            assert row.vision is None
        assert (row.id, row.text, row.label) == ("s0", "well, yes", 0.0)

    def test_features_in_the_samples_file(self, tmp_path: Path) -> None:
        row = first(folder_set(tmp_path, samples(audio=FRAMES.tolist(), vision=[1, 2.5], speaker="A", dialogue_id=0)))
        np.testing.assert_array_equal(row.audio, FRAMES)
        np.testing.assert_array_equal(row.vision, [[1, 2.5]])
        assert (row.speaker, row.dialogue_id) == ("A", "0")
        row = first(folder_set(tmp_path, samples(audio=[], vision=None)))
        assert (row.audio, row.vision) == (None, None)

    @pytest.mark.parametrize("kind", ["parquet", "arrow file", "arrow stream"])
    @pytest.mark.parametrize("fixed", [False, True])
    def test_tables(self, tmp_path: Path, kind: str, fixed: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        frame = pa.list_(pa.float32(), 3) if fixed else pa.list_(pa.float32())
        columns = {
            "id": ["a", "b", "c", "d"],
            "text": ["eins", "zwei", "drei", "vier"],
            "label": [0.5, -0.25, 1.0, 0.0],
            "split": ["train", "dev", "test", "train"],
            "audio": pa.array([FRAMES.tolist(), None, FRAMES[:1].tolist(), FRAMES[:2].tolist()], pa.list_(frame)),
            "vision": pa.array([[1.0, 2.0], [3.0, 4.0], None, [None, 0.5]], pa.list_(pa.float64())),
            "unused": [1, 2, 3, 4],
        }
        table = pa.table(columns)
        if kind == "parquet":
            pq.write_table(table, tmp_path / "samples.parquet")
        else:
            new = pa.ipc.new_file if kind == "arrow file" else pa.ipc.new_stream
            with new(str(tmp_path / "samples.arrow"), table.schema) as writer:
                writer.write_table(table, max_chunksize=1)
        spec = DatasetSpec(name="own", task="msa", layout="folder", range=(-1, 1), source=tmp_path)
        train, (valid,), (test,) = (list(open_source(spec).rows(split)) for split in SPLITS)
        np.testing.assert_array_equal(train[0].audio, FRAMES)
        np.testing.assert_array_equal(train[1].audio, FRAMES[:2])
        np.testing.assert_array_equal(train[1].vision, [[np.nan, 0.5]])
        assert (valid.audio, valid.label, test.vision) == (None, -0.25, None)
        np.testing.assert_array_equal(test.audio, FRAMES[:1])
        info = prepare(spec, root=tmp_path / "root").info
        assert (info.audio.width, info.vision.width, info.vision.nonfinite["train"]) == (3, 2, 1)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"text": ...}, "'text' is missing"),
            ({"label": "rage"}, "unknown label 'rage'"),
            ({"split": "training"}, "unknown split 'training'"),
            ({"split": ...}, "'split' is missing"),
            ({"audio": "../secret.npy"}, "outside the folders of features"),
            ({"audio": "/etc/passwd"}, "outside the folders of features"),
            ({"audio": "audio/gone.npy"}, "no such audio file"),
            ({"audio": "features/odd.txt"}, "Known endings"),
            ({"audio": "features/two.npz"}, "Name one array 'audio'"),
            ({"audio": "features/bad.npy"}, "cannot be read"),
            ({"audio": [[1.0], [1.0, 2.0]]}, "unlike frame 0"),
            ({"audio": [["a"]]}, "not an array of numbers"),
            ({"audio": {"x": 1}}, "is a dict"),
            ({"id": "../s0"}, "outside the folders of features"),
        ],
    )
    def test_mistakes_are_named_with_their_line(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        (tmp_path / "features").mkdir()
        np.savez(tmp_path / "features/two.npz", a=FRAMES, b=FRAMES)
        (tmp_path / "features/bad.npy").write_bytes(b"\x93NUMPY\x01\x00")
        (tmp_path / "features/odd.txt").write_text("")
        spec = folder_set(tmp_path, [*samples(), *samples(**changes)])
        with pytest.raises(MsekitError, match=re.escape(message)) as caught:
            list(open_source(spec).rows("train"))
        assert "samples.jsonl, line 4" in str(caught.value)
        outcome = verify(spec)
        assert outcome.verdict == "unusable"
        assert outcome.splits["train"].samples == 1, "the good row still counts"
        errors = [finding for finding in outcome.findings if finding.severity == "error"]
        assert errors[0].rows[0].startswith("1 (samples.jsonl, line 4")

    def test_what_is_no_samples_file(self, tmp_path: Path) -> None:
        spec = folder_set(tmp_path, samples())
        for content, message in ((b"{", "line 1"), (b"[]", "not an object"), (b"[" * 100_000, "not JSON")):
            (tmp_path / "samples.jsonl").write_bytes(content)
            with pytest.raises(MsekitError, match=message):
                list(open_source(spec).rows("train"))
        for name in ("samples.parquet", "samples.arrow"):
            (tmp_path / "samples.jsonl").unlink(missing_ok=True)
            (tmp_path / name).write_bytes(b"PAR1 no")
            with pytest.raises(MsekitError, match="cannot be read"):
                list(open_source(spec).rows("train"))
            (tmp_path / name).unlink()
        with pytest.raises(MsekitError, match="no samples file"):
            open_source(spec)

    def test_a_renamed_feature_file_is_another_set(self, tmp_path: Path) -> None:
        spec = folder_set(tmp_path, samples())
        (tmp_path / "audio").mkdir()
        np.save(tmp_path / "audio" / "s0.npy", FRAMES)
        np.save(tmp_path / "audio" / "s1.npy", FRAMES)
        before = prepare(spec, root=tmp_path / "root").info
        (tmp_path / "audio" / "s0.npy").rename(tmp_path / "audio" / "s9.npy")
        after = prepare(spec, root=tmp_path / "root").info
        assert before.fingerprint != after.fingerprint
        assert (before.audio.absent["train"], after.audio.absent["train"]) == (0, 1)


class TestCsv:
    def test_one_file_or_three(self, tmp_path: Path) -> None:
        text = '\ufefftext,label,split\n"well, yes",joy,train\nno,anger,validation\n好,1,test\n'
        (tmp_path / "own.csv").write_text(text, encoding="utf-8")
        single = resolve_dataset("own", tmp_path / "own.csv", {"labels": ("joy", "anger")})
        (tmp_path / "three").mkdir()
        for split, line in (("train", '"well, yes",joy'), ("valid", "no,anger"), ("test", "好,1")):
            (tmp_path / "three" / f"{split}.csv").write_text(f"text,label\n{line}\n", encoding="utf-8")
        three = resolve_dataset("own", tmp_path / "three", {"labels": ("joy", "anger")})
        for spec in (single, three):
            assert spec.layout == "csv"
            rows = [next(iter(open_source(spec).rows(split))) for split in SPLITS]
            assert [(row.text, row.label) for row in rows] == [("well, yes", 0.0), ("no", 1.0), ("好", 1.0)]
            info = prepare(spec, root=tmp_path / "root").info
            assert (info.audio.width, info.vision.width) == (0, 0)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("text,split\na,train\n", "column 'label' is missing"),
            ("", "column 'text' is missing"),
            ("text,label,split\nwell, yes,joy,train\n", "more cells"),
            ("text,label,split\na\n", "is missing"),
            ('text,label,split\n"a,joy,train\n', "cannot be read"),
            ("text,label\na,joy\n", "'split' is missing"),
            ("text,label,split\na,rage,train\n", "unknown label"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "own.csv").write_text(text)
        spec = resolve_dataset("own", tmp_path / "own.csv", {"labels": ("joy", "anger")})
        with pytest.raises(MsekitError, match=message):
            list(open_source(spec).rows("train"))

    @pytest.mark.slow
    def test_text_alone_trains(self, tmp_path: Path) -> None:
        lines = [f"good {i},1.0,{split}\nbad {i},-1.0,{split}" for split in SPLITS for i in range(8)]
        (tmp_path / "own.csv").write_text("text,label,split\n" + "\n".join(lines))
        description = {"name": "own", "task": "msa", "layout": "csv", "range": [-1, 1], "source": "own.csv"}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(description))
        command = ["train", "--backbone", "tiny-llama", "--dataset", str(tmp_path / "own.yaml"), "--epochs", "1"]
        result = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "run")])
        assert result.exit_code == 0, (result.output, result.exception)


class TestOptions:
    def test_they_describe_and_override(self, tmp_path: Path) -> None:
        options = {"labels": None, "range": (-2.0, 2.0), "language": "zh", "prompt": "P:"}
        spec = resolve_dataset("own", tmp_path, options)
        assert (spec.task, spec.layout, spec.language, spec.task_prompt) == ("msa", "msa-pickle", "zh", "P:")
        assert resolve_dataset("mosi", tmp_path, {"prompt": "Q:"}).task_prompt == "Q:"
        assert resolve_dataset("own", tmp_path, {"labels": ("a", "b")}).layout == "erc-pickle"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--labels", "a"], "two or more"),
            (["--labels", "a,,b"], "--labels takes names"),
            (["--range", "1"], "--range takes two numbers"),
            (["--range", "1,-1"], "low < high"),
            (["--labels", "a,b", "--range", "-1,1"], "no `range`"),
            (["--labels", "a,b", "--language", "fr"], "language"),
            ([], "unknown data set 'own'"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        result = CliRunner().invoke(app, ["data", "verify", "own", "--source", str(tmp_path), *arguments])
        assert isinstance(result.exception, MsekitError)
        assert message in str(result.exception)

    def test_info_as_json(self, tmp_path: Path) -> None:
        folder_set(tmp_path, samples(audio=FRAMES.tolist()))
        command = ["data", "info", "own", "--source", str(tmp_path), "--labels", "joy,anger", "--format", "json"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.exception
        facts = json.loads(result.stdout)
        assert facts["splits"]["train"]["labels"] == {"joy": 1, "anger": 0}
        assert facts["splits"]["test"]["audio_frames"]["most"] == 4
        assert (facts["audio"]["width"], len(facts["fingerprint"])) == (3, 64)

    def test_without_matplotlib(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
        folder_set(tmp_path, samples())
        command = ["data", "info", "own", "--source", str(tmp_path), "--labels", "joy,anger", "--plot", "x.png"]
        result = CliRunner().invoke(app, command)
        assert "msekit[plot]" in str(result.exception)

"""What baselines read of a text: words, a file's own features, states of a frozen LLM; and labels by modality."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from msekit.backbones.backbone import Backbone
from msekit.backbones.hidden_states import StatesWanted, token_states
from msekit.baselines.catalogue import BASELINES
from msekit.baselines.rival_data import RivalData, cannot_serve
from msekit.baselines.run import CannotServeError, run_baseline
from msekit.baselines.texts import TextFrom, open_texts
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS, DatasetSpec
from msekit.data.open_data import open_data
from msekit.errors import MsekitError
from msekit.model import stored_tokens
from msekit.model.stored_tokens import token_table
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)
SIZES = {"train": 12, "valid": 4, "test": 4}
TOKENS = [4, 2, 3]


def published(folder: Path, leave_out: tuple[str, ...] = (), layout: str = "msa-pickle") -> DatasetSpec:
    """A file as SIMS' is: features of the text, BERT's ids with their mask, a label for each modality."""
    generator, rows = np.random.default_rng(0), {}
    for split, size in SIZES.items():
        lengths = np.array([TOKENS[n % 3] for n in range(size)])
        mask = np.arange(5)[None] < lengths[:, None]
        rows[split] = {
            "raw_text": [f"words of sample {n}" for n in range(size)],
            "audio": generator.normal(size=(size, 3, 2)),
            "vision": generator.normal(size=(size, 2, 4)),
            "regression_labels": np.linspace(-1, 1, size),
            "text": (generator.normal(size=(size, 5, 6)) * mask[..., None]).astype(np.float32),
            "text_bert": np.stack([np.ones((size, 5)), mask, np.zeros((size, 5))], axis=1).astype(np.float32),
            **{f"regression_labels_{m}": np.linspace(-1, 1, size) * k for k, m in enumerate("TAV", 1)},
        }
        for key in leave_out:
            rows[split].pop(key)
    (folder / "set.pkl").write_bytes(pickle.dumps(rows))
    return DatasetSpec(name="set", task="msa", layout="msa-pickle", range=(-3, 3), source=folder / "set.pkl")


def data_of(spec: DatasetSpec, name: str, text: TextFrom) -> RivalData:
    spec, cache = open_data(spec, "float32", QUIET)
    chosen = np.arange(len(cache.split("train")))
    texts = open_texts(spec, cache, chosen, text, BASELINES[name].level, QUIET)
    return RivalData(spec, cache, chosen, BASELINES[name], texts)


def test_a_file_s_features_are_read_to_their_true_length(tmp_path: Path):
    spec = published(tmp_path)
    stored = pickle.loads((tmp_path / "set.pkl").read_bytes())["test"]["text"]
    batch = data_of(spec, "lft", TextFrom("file")).batch("test", [1, 2])
    assert batch.text_lengths.tolist() == [2, 3]
    assert batch.text_ids.shape == (2, 3)
    assert batch.tokens is not None
    np.testing.assert_array_equal(batch.tokens[0, :2], stored[1, :2])
    np.testing.assert_array_equal(batch.tokens[1], stored[2, :3])
    assert not batch.tokens[0, 2:].any()
    whole = data_of(spec, "misa", TextFrom("file")).batch("test", [1])
    np.testing.assert_array_equal(whole.sentence[0], stored[1, 0])


def test_without_bert_s_mask_zeros_end_a_text_and_its_mean_stands_for_it(tmp_path: Path):
    spec = published(tmp_path, leave_out=("text_bert",))
    stored = pickle.loads((tmp_path / "set.pkl").read_bytes())["test"]["text"]
    data = data_of(spec, "misa", TextFrom("file"))
    assert data.batch("test", [0, 1, 2, 3]).text_lengths.tolist() == [4, 2, 3, 4]
    np.testing.assert_allclose(data.batch("test", [1]).sentence[0], stored[1, :2].mean(axis=0), rtol=1e-6)


def test_a_file_without_features_of_its_texts_is_refused(tmp_path: Path):
    with pytest.raises(MsekitError, match="token ids, which need BERT"):
        data_of(published(tmp_path, leave_out=("text",)), "lft", TextFrom("file"))
    with pytest.raises(MsekitError, match="holds no features of its texts"):
        data_of(DATASETS["synthetic-erc"], "lft", TextFrom("file"))


def test_labels_by_modality_are_read_where_there_are_any(tmp_path: Path):
    batch = data_of(published(tmp_path), "av-mc", TextFrom()).batch("valid", [0, 3])
    np.testing.assert_allclose(batch.truths, [[-1, -2, -3], [1, 2, 3]])
    report = run_baseline("av-mc", published(tmp_path), 1, tmp_path / "run", epochs=1, reporter=QUIET)
    assert report["trainable_parameters"]
    assert "epoch" not in (report["apart"] or "")
    without = tmp_path / "without"
    without.mkdir()
    bare = published(without, leave_out=tuple(f"regression_labels_{m}" for m in "TAV"))
    with pytest.raises(CannotServeError, match="no labels of single modalities"):
        run_baseline("av-mc", bare, 1, tmp_path / "bare", epochs=1, reporter=QUIET)
    assert not (tmp_path / "bare").exists()
    assert data_of(bare, "lfmim", TextFrom()).batch("valid", [0]).truths is None


def test_what_a_set_lacks_is_said(tmp_path: Path):
    spec, cache = open_data(DATASETS["synthetic-erc"], "float32", QUIET)
    assert "dialogue" in (cannot_serve(BASELINES["mmgcn"], spec, cache) or "")
    assert "intensities" in (cannot_serve(BASELINES["self-mm"], spec, cache) or "")
    assert cannot_serve(BASELINES["mult"], spec, cache) is None
    (tmp_path / "all.csv").write_text(
        "text,label,split\n" + "".join(f"word{n},{n % 2},{split}\n" for split in SIZES for n in range(4))
    )
    own = DatasetSpec(name="own", task="erc", layout="csv", labels=("0", "1"), source=tmp_path / "all.csv")
    spec, cache = open_data(own, "float32", QUIET)
    assert cannot_serve(BASELINES["mult"], spec, cache) == "the set has neither audio nor vision"
    assert cannot_serve(BASELINES["lf-lstm"], spec, cache) is None


def test_states_of_tokens_are_the_llm_s_own_and_are_made_once(tiny: Backbone, tmp_path: Path, monkeypatch):
    texts = [tiny.encode(text) for text in ("one two three", "", "four", "one two three")]
    table = token_table(tiny, texts, 1, QUIET, tmp_path)
    found = table([0, 1, 3])
    assert found.shape == (3, len(texts[0]), tiny.text_dim)
    (expected,) = token_states(tiny, [texts[0]], None, StatesWanted((1,)))
    expected = expected[:, 0] / expected[:, 0].square().mean(dim=1, keepdim=True).sqrt()
    assert torch.allclose(found[0], expected, atol=2e-3)
    assert torch.equal(found[0], found[2])
    assert not found[1].any(), "a text of no tokens"
    monkeypatch.setattr(stored_tokens, "token_states", lambda *_: pytest.fail("made again"))
    assert torch.equal(token_table(tiny, texts, 1, QUIET, tmp_path)([0]), found[:1])


def test_a_damaged_part_alone_is_made_again(tiny: Backbone, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(stored_tokens, "PART", 2)
    texts = [tiny.encode(text) for text in ("one", "two two", "three three three", "four")]
    before = token_table(tiny, texts, 2, QUIET, tmp_path)(range(4))
    parts = sorted(tmp_path.glob("states/*/part-*"))
    assert len(parts) == 2
    content = bytearray(parts[1].read_bytes())
    content[-1] ^= 1
    parts[1].write_bytes(content)
    own, made = stored_tokens.token_states, []

    def counted(backbone, some, *rest):
        made.extend(some)
        return own(backbone, some, *rest)

    monkeypatch.setattr(stored_tokens, "token_states", counted)
    assert torch.equal(token_table(tiny, texts, 2, QUIET, tmp_path)(range(4)), before)
    assert len(made) == 2


def test_a_run_says_what_it_read_and_is_not_taken_for_another(tmp_path: Path):
    spec = DATASETS["synthetic-erc"]
    asked = {"spec": spec, "seed": 1, "epochs": 1, "limit_train": 16, "reporter": QUIET}
    text = TextFrom("backbone", "tiny-llama", sentence="mean")
    report = run_baseline("misa", output=tmp_path, text=text, **asked)
    assert (report["text_from"], report["text_layer"], report["text_sentence"]) == ("backbone", 1, "mean")
    assert report["backbone"] == "tiny-llama"
    assert report["apart"]
    assert run_baseline("misa", output=tmp_path, text=text, **asked) == report
    for other in (TextFrom("backbone", "tiny-llama"), TextFrom("backbone", "tiny-llama", 2, "mean"), TextFrom()):
        with pytest.raises(MsekitError, match="another baseline"):
            run_baseline("misa", output=tmp_path, text=other, **asked)


def talks(folder: Path) -> DatasetSpec:
    """Dialogues of two utterances; the label of the second lies in the first, its own text says nothing of it."""
    drawn, lines = np.random.default_rng(0), ["text,label,split,dialogue_id,speaker"]
    for split, count in (("train", 150), ("valid", 40), ("test", 60)):
        for talk in range(count):
            said = drawn.choice(["yes", "no"], 2)
            lines += [f"{said[place]},{said[0]},{split},{split}{talk},{'AB'[place]}" for place in (0, 1)]
    (folder / "talks.csv").write_text("\n".join(lines) + "\n")
    return DatasetSpec(name="talks", task="erc", layout="csv", labels=("yes", "no"), source=folder / "talks.csv")


def test_what_was_said_before_is_read_with_context_alone(tmp_path: Path):
    spec, text = talks(tmp_path), TextFrom(backbone="tiny-llama", context=1)
    asked = {"spec": spec, "seed": 1, "reporter": QUIET}
    with_it = run_baseline("llm-linear", output=tmp_path / "with", text=text, **asked)
    without = run_baseline("llm-linear", output=tmp_path / "without", text=TextFrom(backbone="tiny-llama"), **asked)
    assert with_it["metrics"]["acc"] > 0.97
    assert without["metrics"]["acc"] < 0.9
    assert (with_it["context"], without["context"]) == (1, None)
    with pytest.raises(MsekitError, match=r"another baseline \(context: 1 → None"):
        run_baseline("llm-linear", output=tmp_path / "with", text=TextFrom(backbone="tiny-llama"), **asked)


def test_tokens_have_their_context_in_front_within_the_limit(tmp_path: Path, tiny: Backbone):
    spec = talks(tmp_path)

    def lengths(**how) -> list[int]:
        text = TextFrom("backbone", "tiny-llama", **how)
        return data_of(spec, "lf-lstm", text).batch("test", [0, 1]).text_lengths.tolist()

    first = f"A: {open_data(spec, 'float32', QUIET)[1].split('test').texts[0]}\n"
    plain, before = lengths(), lengths(context=1)
    assert before[0] == plain[0] + len(tiny.encode("A:"))
    assert before[1] == plain[1] + len(tiny.encode("B:")) + len(tiny.encode(first))
    assert max(lengths(context=1, limit=3)) <= 3


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("mult", TextFrom("backbone", "tiny-llama", context=1), "no dialogue ids"),
        ("mag-head", TextFrom(backbone="tiny-llama", context=1), "does not read hidden states"),
        ("mult", TextFrom(backbone="tiny-llama"), "reads no LLM"),
        ("mult", TextFrom("backbone"), "none is named"),
        ("mult", TextFrom("backbone", "tiny-llama", sentence="mean"), "token by token"),
        ("text-linear", TextFrom("file"), "text of its own"),
        ("misa", TextFrom("backbone", "tiny-llama", 9), "there are layers 0 to 2"),
    ],
)
def test_a_text_that_cannot_be_had_is_refused(name, text, what, tmp_path: Path):
    with pytest.raises(MsekitError, match=what):
        run_baseline(name, DATASETS["synthetic-erc"], 1, tmp_path / "run", text=text, reporter=QUIET)
    with pytest.raises(MsekitError, match="none are read"):
        TextFrom("words", layer=1)
    with pytest.raises(MsekitError, match="none reads"):
        TextFrom("words", context=2)


def test_data_info_says_what_lies_beside_the_rows(tmp_path: Path):
    published(tmp_path)
    described = "name: set\ntask: msa\nlayout: msa-pickle\nrange: [-3, 3]\nsource: set.pkl\n"
    (tmp_path / "set.yaml").write_text(described)
    done = CliRunner().invoke(app, ["data", "info", str(tmp_path / "set.yaml")])
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    assert "beside the rows: features of the text, 6 for each of 5 tokens, their lengths by text_bert" in shown
    assert "beside the rows: labels of single modalities: regression_labels_T" in shown


def test_labels_by_modality_of_a_folder_of_one_s_own(tmp_path: Path):
    rows = [
        {
            "text": f"word {n}",
            "label": "up" if n % 2 else "down",
            "split": split,
            "audio": [[0.5, n]],
            "label_audio": "down",
            **({"label_text": "up"} if n else {}),
        }
        for split in SIZES
        for n in range(3)
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    spec = DatasetSpec(name="own", task="erc", layout="folder", labels=("down", "up"), source=tmp_path)
    batch = data_of(spec, "av-mc", TextFrom()).batch("test", [0, 1])
    np.testing.assert_array_equal(batch.truths, [[np.nan, 0, np.nan], [1, 0, np.nan]])
    assert batch.truth_of("vision").tolist() == [0, 1]
    assert cannot_serve(BASELINES["av-mc"], *open_data(spec, "float32", QUIET)) is None
    rows[0]["label_audio"] = "sideways"
    (tmp_path / "samples.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(MsekitError, match="label_audio"):
        data_of(spec, "av-mc", TextFrom())

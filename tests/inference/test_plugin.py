"""load_run and predict: a run's own test predictions, in any batch, in any form, from a fresh process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import msekit
from msekit.errors import MsekitError

pytestmark = pytest.mark.slow  # the runs are trained first, in seconds


def predicted(plug_in, rows, **options):
    columns = [[getattr(row, key) for row in rows] for key in ("text", "audio", "vision")]
    return plug_in.predict(*columns, ids=[row.id for row in rows], **options)


def largest_difference(answers, others) -> float:
    return max(abs(a.scores[k] - b.scores[k]) for a, b in zip(answers, others, strict=True) for k in a.scores)


@pytest.mark.parametrize("kind", ["erc", "msa"])
def test_the_runs_own_test_predictions(kind: str, request: pytest.FixtureRequest, tiny):
    run, rows, lines = (request.getfixturevalue(f"{kind}_{what}") for what in ("run", "rows", "lines"))
    answers = predicted(msekit.load_run(run, tiny), rows)
    for answer, line in zip(answers, lines, strict=True):
        assert answer.id == line["id"]
        assert answer.prediction == (
            line["prediction"] if kind == "erc" else pytest.approx(line["prediction"], abs=1e-5)
        )
        assert answer.scores == pytest.approx(line["scores"], abs=1e-5)
        assert answer.notes == ()
    assert {answer.estimate for answer in answers} == {"greedy" if kind == "erc" else "mean"}


def test_any_batch_gives_what_each_sample_gives_alone(erc_run: Path, erc_rows, tiny):
    """Texts, audio and vision of very different lengths, some absent."""
    plug_in = msekit.load_run(erc_run, tiny)
    texts = ["", "No.", *(row.text for row in erc_rows[:4]), "well " * 200, "é ñ 你好 \U0001f600"]
    audio = [row.audio for row in erc_rows[: len(texts)]]
    vision = [row.vision for row in erc_rows[: len(texts)]]
    audio[1] = vision[2] = audio[3] = vision[3] = None
    alone = [plug_in.predict(*sample) for sample in zip(texts, audio, vision, strict=True)]
    for size in (1, 3, 8, 100):
        together = plug_in.predict(texts, audio, vision, batch_size=size)
        assert largest_difference(alone, together) < 1e-5
        assert [one.prediction for one in together] == [one.prediction for one in alone]
    assert alone[6].notes == ("the text was cut to 65 tokens",)
    assert together[0].timing.batch == 8
    assert together[0].timing.model > 0
    again = plug_in.predict(texts, audio, vision, batch_size=3)
    assert [one.scores for one in again] == [one.scores for one in plug_in.predict(texts, audio, vision, batch_size=3)]
    assert plug_in.predict([]) == []


def test_every_estimate(msa_run: Path, erc_run: Path, msa_rows, tiny):
    plug_in = msekit.load_run(msa_run, tiny)
    row = msa_rows[0]
    answers = {
        name: plug_in.predict(row.text, row.audio, row.vision, estimate=name)
        for name in ("greedy", "argmax", "mean", "median")
    }
    scores = answers["argmax"].scores
    assert f"{answers['argmax'].prediction:+.1f}" == max(scores, key=scores.__getitem__)
    assert answers["mean"].prediction == pytest.approx(sum(float(k) * v for k, v in scores.items()))
    assert answers["median"].estimate == "median"
    with pytest.raises(MsekitError, match="for intensities"):
        msekit.load_run(erc_run, tiny).predict("Well.", estimate="mean")


def test_non_finite_values_count_as_the_mean_of_the_training_data(erc_run: Path, erc_rows, tiny):
    plug_in = msekit.load_run(erc_run, tiny)
    spoilt, mended = erc_rows[0].audio.copy(), erc_rows[0].audio.copy()
    spoilt[1, 2] = np.inf
    mended[1, 2] = plug_in.description.features["audio"].mean[2]
    answer = plug_in.predict("Well.", spoilt)
    assert answer.scores == pytest.approx(plug_in.predict("Well.", mended).scores, abs=1e-6)
    assert answer.notes == ("1 values of audio were not finite and were replaced by the mean",)


def test_what_cannot_be_predicted_is_refused_with_its_position(erc_run: Path, tiny):
    plug_in = msekit.load_run(erc_run, tiny)
    for arguments, match in (
        ((["a", "b"], [None, np.zeros((3, 5))]), r"5 features .* trained on 16 \(sample 1\)"),
        ((["a", "b"], [None]), "1 values of audio for 2 texts"),
        ((["a", "b"], "clip.npy"), "one value of audio for 2 texts"),
        ((["a", 3],), r"'text' is a int.*sample 1"),
        ((b"bytes",), "int"),
        (("x" * 200_000,), "200000 characters"),
        (("\ud800",), "not valid text"),
    ):
        with pytest.raises(MsekitError, match=match):
            plug_in.predict(*arguments)
    with pytest.raises(MsekitError, match="at least 1"):
        plug_in.predict("a", batch_size=0)
    with pytest.raises(MsekitError, match="3 ids for 1 texts"):
        plug_in.predict(["a"], ids=["a", "b", "c"])


def test_other_weights_are_refused_unless_forced(erc_run: Path, tiny, tmp_path: Path):
    run = Path(shutil.copytree(erc_run, tmp_path / "run"))
    raw = json.loads((run / "adapter.json").read_text())
    raw["backbone"]["fingerprint"] = "0" * 32
    (run / "adapter.json").write_text(json.dumps(raw))
    with pytest.raises(MsekitError, match="trained on other weights"):
        msekit.load_run(run, tiny)
    assert msekit.load_run(erc_run, tiny).notices == ()
    forced = msekit.load_run(run, tiny, force=True)
    assert forced.notices == ("the backbone's weights are not those that the plug-in was trained on",)
    assert forced.predict("Well.").scores
    raw["backbone"]["name"] = "no-such-backbone"
    (run / "adapter.json").write_text(json.dumps(raw))
    with pytest.raises(MsekitError, match="backbone cannot be loaded: unknown backbone"):
        msekit.load_run(run)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"adapter": {"hidden": 10**15}}, "cannot be|is needed"),
        ({"adapter": {"pseudo_tokens": 7}}, "is needed"),
        ({"adapter": {"name": "os.system"}}, "damaged: adapter.name"),
        ({"widths": {"audio": 10**9, "vision": 8}}, "statistics"),
        ({"features": {"audio": {"rest": [0.0, None]}, "vision": {}}}, "statistics are not of 16 features"),
        ({"features": {"audio": None, "vision": None}}, "does not fit its preprocessing"),
        ({"text_limit": 10**9}, "exceed"),
        ({"text_limit": 0}, "text_limit"),
        ({"on_missing": "learned"}, "is for the adapter mse"),
        ({"something_new": 1}, "damaged: something_new"),
        ({"format": 2}, "format 2"),
        ({"prompt_sha256": "0"}, "another prompt"),
        ({"text_dim": 63}, "width 63"),
        ({"dataset": {"task": "erc"}}, "damaged"),
    ],
)
def test_a_description_that_cannot_be_is_refused(erc_run: Path, tiny, tmp_path: Path, change: dict, match: str):
    run = Path(shutil.copytree(erc_run, tmp_path / "run"))
    raw = json.loads((run / "adapter.json").read_text())
    if set(change) == {"adapter"}:
        change = {"adapter": raw["adapter"] | change["adapter"]}
    (run / "adapter.json").write_text(json.dumps(raw | change))
    with pytest.raises(MsekitError, match=match):
        msekit.load_run(run, tiny)


def test_damaged_tensors_are_refused(erc_run: Path, tiny, tmp_path: Path):
    run = Path(shutil.copytree(erc_run, tmp_path / "run"))
    file = run / "adapter.safetensors"
    tensors = load_file(file)
    tensors["projector.expand.bias"][0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(MsekitError, match="not finite"):
        msekit.load_run(run, tiny)
    del tensors["projector.expand.bias"]
    save_file(tensors, file)
    with pytest.raises(MsekitError, match=r"lacks projector\.expand\.bias.*train again"):
        msekit.load_run(run, tiny)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(MsekitError, match="damaged"):
        msekit.load_run(run, tiny)
    with pytest.raises(MsekitError, match="no such run"):
        msekit.load_run(tmp_path / "nothing")

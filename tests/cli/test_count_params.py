"""`count-params`: Table 1 exactly, from sizes alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msekit.adapters.sizes import linear, lstm, modality_encoder, parameter_count
from msekit.backbones.catalogue import BACKBONES
from msekit.backbones.shape import text_width
from msekit.cli.count_params import count_params, described
from msekit.errors import MsekitError

DATA = Path(os.environ.get("MSEKIT_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
TABLE1_EXACT = {
    "qwen-1.8b": (1_351_244, 1_400_268, 1_352_396, 1_561_932),
    "llama2-7b": (2_631_692, 2_680_716, 2_632_844, 2_842_380),
    "chatglm3-6b": (2_631_692, 2_680_716, 2_632_844, 2_842_380),
}
SETS = ("mosei", "sims-v2", "meld", "cherma")


def asked(capsys: pytest.CaptureFixture[str], **options: str | None) -> list[dict[str, object]]:
    """The JSON answer."""
    arguments = {"backbone": None, "dataset": None, "adapter": "mse", "fmt": "json"} | options
    count_params(**arguments)
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_table1_is_exact(capsys):
    answer = asked(capsys)
    assert {(line["backbone"], line["dataset"]): line["trainable"] for line in answer} == {
        (backbone, dataset): count
        for backbone, counts in TABLE1_EXACT.items()
        for dataset, count in zip(SETS, counts, strict=True)
    }
    assert all(list(line) == ["backbone", "dataset", "adapter", "trainable", "paper"] for line in answer)
    assert all(round(line["trainable"] / 1e6, 2) == line["paper"] for line in answer)


@pytest.mark.parametrize(("adapter", "count", "printed"), [("mag", 34_471_936, 34.47), ("chfn", 50_786_304, 50.79)])
def test_rivals_have_table5s_size(capsys, adapter, count, printed):
    (line,) = asked(capsys, backbone="chatglm3-6b", dataset="mosei", adapter=adapter)
    assert (line["trainable"], line["paper"]) == (count, printed)
    assert round(count / 1e6, 2) == printed
    (elsewhere,) = asked(capsys, backbone="chatglm3-6b", dataset="meld", adapter=adapter)
    assert elsewhere["paper"] is None


def test_an_ablation_is_counted_and_named(capsys):
    (line,) = asked(capsys, backbone="chatglm3-6b", dataset="mosei", ablate="no-tgm")
    assert line["trainable"] == 2_631_692 - linear(4096, 256)
    assert (line["ablate"], line["paper"]) == ("no-tgm", None)
    with pytest.raises(MsekitError, match="no-tgm"):
        asked(capsys, ablate="no-tmg")
    with pytest.raises(MsekitError, match="Table 4"):
        asked(capsys, adapter="mag", ablate="no-tgm")


@pytest.mark.parametrize(
    ("hidden", "tokens", "count"), [((64, 32), 2, 1_352_392), ((32, 16), 2, 1_312_072), ((64, 32), 4, 1_352_396)]
)
def test_variants_of_qwen_on_meld(hidden, tokens, count):
    assert parameter_count("mse", 2048, 64, 64, *hidden, tokens) == count


def test_a_missing_modality_has_no_encoder():
    full = parameter_count("mse", 64, 40, 35, 64, 32, 4)
    assert parameter_count("mse", 64, 40, 0, 64, 32, 4) == full - lstm(35, 32) - linear(32, 256)
    assert parameter_count("mse", 64, 0, 0, 64, 32, 4) == full - modality_encoder(35, 32, 256) - modality_encoder(
        40, 64, 256
    )


@pytest.mark.parametrize(("text_dim", "audio", "vision"), [(64, 40, 35), (576, 73, 0), (576, 0, 60)])
def test_count_equals_the_built_adapter(text_dim, audio, vision):
    adapter = pytest.importorskip("msekit.adapters.mse").MSEAdapter(text_dim, audio, vision, 64, 32, 4)
    built = sum(parameter.numel() for parameter in adapter.parameters())
    assert parameter_count("mse", text_dim, audio, vision, 64, 32, 4) == built


def test_other_pairs_take_the_kits_sizes(capsys):
    (line,) = asked(capsys, backbone="tiny-llama", dataset="sims-v2")
    assert line["trainable"] == parameter_count("mse", 64, 25, 177, 64, 32, 4)
    assert line["paper"] is None


def test_options_narrow_the_table(capsys):
    assert {line["backbone"] for line in asked(capsys, dataset="meld")} == set(TABLE1_EXACT)
    assert [line["dataset"] for line in asked(capsys, backbone="smollm2-135m")] == list(SETS)


def test_the_table_goes_to_stdout(capsys):
    count_params(None, None, "mse", "table")
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "1,352,396" in captured.out
    assert "1.35M" in captured.out


def test_unknown_names_are_told_apart():
    with pytest.raises(MsekitError, match="mse"):
        count_params(None, None, "msee", "json")
    with pytest.raises(MsekitError, match=r"qwen-1\.8b"):
        count_params("qwen-1.8", None, "mse", "json")
    with pytest.raises(MsekitError, match="sims-v2"):
        count_params(None, "sims-v3", "mse", "json")


def test_backbone_by_folder_and_by_file(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "x", "text_config": {"hidden_size": 96}}')
    assert text_width(str(tmp_path)) == 96
    (tmp_path / "gpt.json").write_text('{"n_embd": 48}')
    assert text_width(str(tmp_path / "gpt.json")) == 48
    (tmp_path / "opt.json").write_text('{"hidden_size": 1024, "word_embed_proj_dim": 512}')
    assert text_width(str(tmp_path / "opt.json")) == 512
    assert text_width("tiny-llama") == BACKBONES["tiny-llama"].hidden_size


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"hidden_size": "big"}'])
def test_a_configuration_without_width_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(MsekitError, match=r"config\.json"):
        text_width(str(tmp_path))


def test_a_folder_without_configuration_is_refused(tmp_path):
    with pytest.raises(MsekitError, match=r"no config\.json"):
        text_width(str(tmp_path))


@pytest.mark.parametrize("name", ["nobody/not-cached", "no body/at all"])
def test_a_hub_id_that_is_not_cached_is_refused(name):
    with pytest.raises(MsekitError, match=r"cache|hub id"):
        text_width(name)


def test_a_cached_hub_id_is_read(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text('{"d_model": 32}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert text_width("some/model") == 32


@pytest.mark.parametrize("name", ["qwen1-tiny", "chatglm3-tiny"])
def test_tiny_checkpoints_state_their_width(name):
    folder = DATA / "backbones" / name
    if not folder.is_dir():
        pytest.skip(f"no checkpoint at {folder} (MSEKIT_TEST_DATA)")
    assert text_width(str(folder)) == json.loads((folder / "config.json").read_text())["hidden_size"]


@pytest.mark.parametrize(("name", "audio", "vision"), [("ravdess", 40, 35), ("meld6", 156, 60), ("mosi_utt", 73, 0)])
def test_widths_of_real_sets_come_from_their_rows(name, audio, vision):
    path = DATA / name / f"{name}.yaml"
    if not path.is_file():
        pytest.skip(f"no data set at {path} (MSEKIT_TEST_DATA)")
    assert described(str(path))[1:] == (audio, vision)


def test_answers_within_three_seconds_and_without_torch():
    program = (
        "import sys, typer; from msekit.cli.count_params import count_params; app = typer.Typer();"
        "app.command()(count_params); app(['--format', 'json'], standalone_mode=False);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 12
    assert time.monotonic() - start < 3

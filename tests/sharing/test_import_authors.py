"""Checkpoints of the authors' program: their names, their order of scales, their outputs; and nothing executed."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import msekit
from msekit.adapters.mse import MSEAdapter
from msekit.errors import MsekitError
from msekit.sharing.import_authors import import_checkpoint, read_authors_checkpoint


def authors_checkpoint(
    text_dim: int, audio: tuple[int, int], vision: tuple[int, int], pseudo_tokens: int
) -> dict[str, torch.Tensor]:
    """A state dict under the authors' names, random: (width, hidden) of each modality."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    tensors = OrderedDict()
    for name, (width, hidden) in (("audio_LSTM", audio), ("video_LSTM", vision)):
        tensors[f"Model.{name}.rnn.weight_ih_l0"] = random(4 * hidden, width)
        tensors[f"Model.{name}.rnn.weight_hh_l0"] = random(4 * hidden, hidden)
        tensors[f"Model.{name}.rnn.bias_ih_l0"], tensors[f"Model.{name}.rnn.bias_hh_l0"] = random(2, 4 * hidden)
        tensors[f"Model.{name}.linear.weight"], tensors[f"Model.{name}.linear.bias"] = random(256, hidden), random(256)
    tensors["Model.text_guide_mixer.text_mlp.weight"] = random(256, text_dim)
    tensors["Model.text_guide_mixer.text_mlp.bias"] = random(256)
    fusion = "Model.mutli_scale_fusion"
    for number, scale in enumerate((8, 32, 16), start=1):
        inner = text_dim // scale
        tensors[f"{fusion}.scale{number}.0.weight"], tensors[f"{fusion}.scale{number}.0.bias"] = (
            random(inner, 256),
            random(inner),
        )
        tensors[f"{fusion}.scale{number}.2.weight"], tensors[f"{fusion}.scale{number}.2.bias"] = (
            random(256, inner),
            random(256),
        )
    tensors[f"{fusion}.integrating.Integrating_layer.0.weight"] = random(1, 1, 1, 3)
    tensors[f"{fusion}.integrating.Integrating_layer.0.bias"] = random(1)
    tensors[f"{fusion}.multi_scale_projector.weight"] = random(text_dim, 256)
    tensors[f"{fusion}.multi_scale_projector.bias"] = random(text_dim)
    tensors[f"{fusion}.projector.weight"], tensors[f"{fusion}.projector.bias"] = (
        random(pseudo_tokens, 1),
        random(pseudo_tokens),
    )
    return tensors


def test_the_parity_fixture_under_the_authors_names(test_data: Path, tmp_path: Path):
    """The fixture's weights, saved as the authors' program saves them, give the outputs of the authors' modules."""
    fixture = load_file(test_data / "adapter" / "expected.safetensors")
    theirs = {}
    for name, ours in (("audio", "audio_LSTM"), ("vision", "video_LSTM")):
        for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            theirs[f"Model.{ours}.rnn.{part}"] = fixture[f"{name}_lstm.{part}"]
        theirs |= {
            f"Model.{ours}.linear.weight": fixture[f"W_{name}"],
            f"Model.{ours}.linear.bias": fixture[f"b_{name}"],
        }
    theirs |= {
        "Model.text_guide_mixer.text_mlp.weight": fixture["W_text"],
        "Model.text_guide_mixer.text_mlp.bias": fixture["b_text"],
        "Model.mutli_scale_fusion.integrating.Integrating_layer.0.weight": fixture[
            "msf.conv.weight_k8_k32_k16"
        ].reshape(1, 1, 1, 3),
        "Model.mutli_scale_fusion.integrating.Integrating_layer.0.bias": fixture["msf.conv.bias"],
        "Model.mutli_scale_fusion.multi_scale_projector.weight": fixture["W3"],
        "Model.mutli_scale_fusion.multi_scale_projector.bias": fixture["b3"],
        "Model.mutli_scale_fusion.projector.weight": fixture["W4"],
        "Model.mutli_scale_fusion.projector.bias": fixture["b4"],
    }
    for number, scale in enumerate((8, 32, 16), start=1):
        for layer, part in ((0, "1"), (2, "2")):
            key = f"Model.mutli_scale_fusion.scale{number}.{layer}"
            theirs |= {
                f"{key}.weight": fixture[f"msf.k{scale}.W{part}"],
                f"{key}.bias": fixture[f"msf.k{scale}.b{part}"],
            }
    torch.save(OrderedDict(theirs), tmp_path / "authors.pth")
    tensors = read_authors_checkpoint(tmp_path / "authors.pth")
    audio_hidden, vision_hidden = (tensors[f"{m}_encoder.lstm.weight_hh_l0"].shape[1] for m in ("audio", "vision"))
    adapter = MSEAdapter(96, 10, 7, audio_hidden, vision_hidden, 4)
    adapter.load_state_dict(tensors)
    text = fixture["in.text_embeddings"]
    with torch.no_grad():
        pseudo = adapter(
            text,
            torch.ones(text.shape[:2]),
            fixture["in.audio"],
            fixture["in.audio_lengths"],
            fixture["in.vision"],
            fixture["in.vision_lengths"],
        )
    assert (pseudo - fixture["out.pseudo_tokens"]).abs().max() <= 1e-5


@pytest.mark.slow
def test_an_imported_checkpoint_predicts_and_evaluates(tmp_path: Path, tiny):
    theirs = authors_checkpoint(64, (16, 12), (8, 6), 3)
    theirs["Model.LLM.model.rotary.inv_freq"] = torch.ones(4)  # a buffer of the LLM: saved too, and of no use here
    torch.save(theirs, tmp_path / "authors.pth")
    run = import_checkpoint(tmp_path / "authors.pth", "tiny-llama", "synthetic-erc", tmp_path / "run")
    plug_in = msekit.load_run(run, tiny)
    assert plug_in.model.adapter.projector.expand.out_features == 3
    assert plug_in.description.estimate == "greedy"
    assert plug_in.predict("Well.", torch.zeros(3, 16)).prediction in ("calm", "glad", "sad", "angry")
    from msekit.studies.evaluate import evaluate

    assert evaluate(run, "valid")["samples"] == 160


class Bomb:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_what_is_no_checkpoint_of_theirs_is_refused(tmp_path: Path):
    good = authors_checkpoint(64, (16, 12), (8, 6), 3)
    first = "Model.audio_LSTM.rnn.weight_ih_l0"
    cases = {
        "more than tensors": good | {first: Bomb(tmp_path / "executed")},
        "not a plain state dict": good | {first: [1, 2]},
        "not a plain state dict of": [1, 2],
        "no 'audio_LSTM.rnn.weight_ih_l0'": {key: value for key, value in good.items() if key != first},
        "unknown 'cls_head.0.weight'": good | {"Model.cls_head.0.weight": torch.zeros(1)},
        "4 weights, not 3": good | {"Model.mutli_scale_fusion.integrating.Integrating_layer.0.weight": torch.zeros(4)},
    }
    for match, content in cases.items():
        torch.save(content, tmp_path / "file.pth")
        with pytest.raises(MsekitError, match=match):
            read_authors_checkpoint(tmp_path / "file.pth")
    torch.save(good, tmp_path / "file.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "file.pth").read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("hello")
    for name in ("cut.pth", "text.pth", "missing.pth", "."):
        with pytest.raises(MsekitError):
            read_authors_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    for backbone, dataset, match in (
        ("smollm2-135m", "synthetic-erc", "width 64, 'smollm2-135m' has 576"),
        ("tiny-llama", "mosei", "reads 16 audio features per frame, 'mosei' has 74"),
        ("tiny-lama", "synthetic-erc", "unknown backbone"),
    ):
        with pytest.raises(MsekitError, match=match):
            import_checkpoint(tmp_path / "file.pth", backbone, dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()

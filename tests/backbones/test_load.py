"""Loading: names, folders, refusals, fingerprints; and the real small LLM where it is in the user's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from msekit.backbones.checkpoints.smollm2 import WHEEL
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.fingerprint import fingerprint_checkpoint, fingerprint_tensors
from msekit.backbones.load import checkpoint_folder, load_backbone
from msekit.errors import MsekitError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint folder that a test may spoil."""
    return Path(shutil.copytree(tiny_llama_folder(), tmp_path / "checkpoint"))


def test_a_folder_is_the_same_backbone_as_its_name(tiny, copy: Path):
    from_folder = load_backbone(str(copy), device="cpu")
    assert from_folder.fingerprint == tiny.fingerprint
    assert from_folder.text_dim == 64
    assert not from_folder.model.training
    assert not any(parameter.requires_grad for parameter in from_folder.model.parameters())


def test_the_fingerprint_is_of_the_source_not_of_the_loaded_dtype(tiny):
    half = load_backbone("tiny-llama", dtype="bf16", device="cpu")
    assert half.model.dtype == torch.bfloat16
    assert half.fingerprint == tiny.fingerprint


@pytest.mark.parametrize("change", ["value", "swap", "name", "shape", "dtype"])
def test_a_fingerprint_notices(change):
    weights = {"a": torch.arange(12.0), "b": torch.ones(3)}
    other = {name: tensor.clone() for name, tensor in weights.items()}
    if change == "value":
        other["a"][5] += 1e-6
    elif change == "swap":
        other["a"][[1, 9]] = other["a"][[9, 1]]
    elif change == "name":
        other["c"] = other.pop("b")
    elif change == "shape":
        other["a"] = other["a"].reshape(3, 4)
    else:
        other["b"] = other["b"].to(torch.float16)
    assert fingerprint_tensors(weights.items()) == fingerprint_tensors(list(weights.items())[::-1])
    assert fingerprint_tensors(other.items()) != fingerprint_tensors(weights.items())


@pytest.mark.parametrize("spoil", ["missing", "unexpected", "misshapen", "truncated"])
def test_a_checkpoint_that_does_not_match_is_refused(copy: Path, spoil: str):
    file = copy / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    if spoil == "missing":
        del tensors[name]
    elif spoil == "unexpected":
        tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2)
    elif spoil == "misshapen":
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, file, {"format": "pt"})
    if spoil == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(MsekitError) as refusal:
        load_backbone(str(copy), device="cpu")
    assert "checkpoint" in str(refusal.value)


def test_an_architecture_nobody_knows_is_refused(copy: Path):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    with pytest.raises(MsekitError, match=r"does not know the checkpoint.s model type"):
        load_backbone(str(copy), device="cpu")


def test_names_are_suggested():
    with pytest.raises(MsekitError, match="smollm2-135m"):
        checkpoint_folder("smollm2")


def test_a_hub_id_that_is_not_at_hand_offline():
    with pytest.raises(MsekitError, match="the hub is switched off by HF_HUB_OFFLINE"):
        checkpoint_folder("nobody/no-such-model")


def test_a_wheel_with_another_hash_is_refused(own_cache: Path):
    wheel = own_cache / "downloads" / WHEEL
    wheel.parent.mkdir(exist_ok=True)
    wheel.write_bytes(b"not the wheel")
    with pytest.raises(MsekitError, match="wrong sha256"):
        checkpoint_folder("smollm2-135m")
    assert not (own_cache / "backbones" / "smollm2-135m-1").exists()
    wheel.unlink()


@pytest.mark.slow
def test_the_real_small_llm(smollm2: str):
    backbone = load_backbone(smollm2, device="cpu")
    assert backbone.text_dim == 576
    assert sum(parameter.numel() for parameter in backbone.model.parameters()) == 134_515_008
    assert len(backbone.encode("+1.0")) == 4
    assert fingerprint_checkpoint(checkpoint_folder(smollm2)) == backbone.fingerprint
    prompt = torch.tensor([[*backbone.bos, *backbone.encode("The capital of France is")]])
    with torch.no_grad():
        best = int(backbone.model(prompt).logits[0, -1].argmax())
    assert backbone.tokenizer.decode([best]).strip() == "Paris"

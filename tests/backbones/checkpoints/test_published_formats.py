"""Qwen-1 and ChatGLM3 from their published formats: the original's logits, and one clear line for a bad checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import published_reference
import pytest
import torch
from safetensors.torch import load_file, save_file

from msekit.backbones.backbone import Backbone
from msekit.backbones.checkpoints.formats import QUERY_KEY_VALUE
from msekit.backbones.checkpoints.weight_files import tensors_of, weight_files
from msekit.backbones.load import load_backbone
from msekit.errors import MsekitError

TOLERANCE = 2e-5  # logits have a deviation of about 1.5
NORM = {"qwen1": "transformer.ln_f.weight", "chatglm3": "transformer.encoder.final_layernorm.weight"}
EMBEDDING = {"qwen1": "transformer.wte.weight", "chatglm3": "transformer.embedding.word_embeddings.weight"}


@torch.no_grad()
def native_logits(backbone: Backbone, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Logits from tokens and from embeddings, plain and with a mask."""
    model, mask = backbone.model, inputs["mask"]
    return {
        "logits_ids": model(inputs["ids"]).logits,
        "logits_emb": model(inputs_embeds=inputs["emb"]).logits,
        "logits_ids_mask": model(inputs["ids"], attention_mask=mask).logits,
        "logits_emb_mask": model(inputs_embeds=inputs["emb"], attention_mask=mask).logits,
    }


def compare(backbone: Backbone, inputs: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, found in native_logits(backbone, inputs).items():
        real = inputs["mask"].bool() if name.endswith("mask") else torch.ones_like(inputs["mask"]).bool()
        assert (found - expected[name])[real].abs().max() < TOLERANCE, name


def referenced(folder: Path, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the published equations give for a checkpoint."""
    raw = json.loads((folder / "config.json").read_text())
    weights = {name: tensor.float() for file in weight_files(folder) for name, tensor in tensors_of(file)}
    ids, emb, mask = inputs["ids"], inputs["emb"], inputs["mask"]
    cases = {"ids": (ids, None), "emb": (None, emb)}
    plain = {
        f"logits_{n}": published_reference.logits(raw, weights, *c, torch.ones_like(mask)) for n, c in cases.items()
    }
    masked = {f"logits_{n}_mask": published_reference.logits(raw, weights, *c, mask) for n, c in cases.items()}
    return plain | masked


@pytest.mark.parametrize("name", ["qwen1-tiny", "chatglm3-tiny"])
def test_the_originals_logits(test_data: Path, name: str):
    folder = test_data / "backbones" / name
    expected = load_file(folder / "expected.safetensors")
    compare(load_backbone(str(folder), device="cpu"), expected, expected)
    for key, found in referenced(folder, expected).items():  # the equations of the other tests are the original's
        real = expected["mask"].bool() if key.endswith("mask") else slice(None)
        assert (found - expected[key])[real].abs().max() < TOLERANCE, key


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("qwen1", {}),
        ("qwen1", {"seed": 1, "hidden_size": 96, "num_attention_heads": 6, "num_hidden_layers": 2}),
        ("qwen1", {"seed": 2, "intermediate_size": 300, "num_hidden_layers": 5, "rotary_emb_base": 1000000}),
        ("qwen1", {"seed": 3, "num_attention_heads": 1, "kv_channels": 64, "vocab_size": 700, "binary": True}),
        ("qwen1", {"seed": 4, "tie_word_embeddings": True}),
        ("qwen1", {"seed": 5, "tie_word_embeddings": True, "binary": True}),
        ("chatglm3", {}),
        ("chatglm3", {"seed": 1, "multi_query_group_num": 1, "num_layers": 2}),
        ("chatglm3", {"seed": 2, "multi_query_group_num": 4, "ffn_hidden_size": 150, "rope_ratio": 50}),
        ("chatglm3", {"seed": 3, "kv_channels": 32, "num_attention_heads": 6, "binary": False}),
        ("chatglm3", {"seed": 4, "tie_word_embeddings": True, "padded_vocab_size": 600}),
        ("chatglm3", {"seed": 5, "add_qkv_bias": False, "layernorm_epsilon": 1e-3, "binary": False}),
    ],
)
def test_other_sizes_and_seeds(published, kind: str, fields: dict):
    folder = published(kind, **fields)
    generator = torch.Generator().manual_seed(7)
    raw = json.loads((folder / "config.json").read_text())
    ids = torch.randint(raw.get("padded_vocab_size", raw.get("vocab_size")), (3, 21), generator=generator)
    mask = (torch.arange(21) >= torch.tensor([[0], [4], [13]])).long()
    inputs = {"ids": ids, "emb": torch.randn(3, 21, raw["hidden_size"], generator=generator), "mask": mask}
    compare(load_backbone(str(folder), device="cpu"), inputs, referenced(folder, inputs))


def test_a_stored_head_counts_even_where_the_config_says_tied(published):
    """ChatGLM's own code never ties; a head that is stored is the head."""
    folder = published("chatglm3")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": True}))
    model = load_backbone(str(folder), device="cpu").model
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_the_stock_architectures_know_nothing_of_the_conversion():
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    for name in ("Qwen2ForCausalLM", "GlmForCausalLM", "qwen2", "glm"):
        mapping = get_checkpoint_conversion_mapping(name) or []
        assert not any(target in str(mapping) for target in QUERY_KEY_VALUE)


def edit(folder: Path, change) -> Path:
    """Rewrite the shard that holds the final norm; returns it."""
    for shard in weight_files(folder):
        tensors = dict(tensors_of(shard))
        if any(name in NORM.values() for name in tensors):
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            change(tensors)
            save_file(tensors, shard, {"format": "pt"}) if shard.suffix == ".safetensors" else torch.save(
                tensors, shard
            )
            return shard
    raise AssertionError("no final norm")


def refusal(folder: Path) -> str:
    with pytest.raises(MsekitError) as caught:
        load_backbone(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["qwen1", "chatglm3"])
def test_a_damaged_checkpoint_is_refused_by_name(published, kind: str):
    norm = NORM[kind]
    folder = published(kind)
    shard = edit(folder, lambda tensors: tensors.update({norm: torch.ones(7)}))
    assert f"tensor {norm} has shape (7,); config.json asks for (64,)" in refusal(folder)
    edit(folder, lambda tensors: tensors.update({norm: torch.ones(64), "transformer.extra": torch.ones(2)}))
    assert "has unexpected tensors: 1, first transformer.extra" in refusal(folder)
    edit(folder, lambda tensors: (tensors.pop("transformer.extra"), tensors.pop("lm_head.weight", None)))
    edit(folder, lambda tensors: tensors.pop(norm) if kind == "chatglm3" else None)
    assert "the checkpoint lacks tensors: 1, first" in refusal(folder)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert "truncated or damaged" in refusal(folder)
    assert shard.name in refusal(folder)
    shard.unlink()
    assert f"weight files are missing: {shard.name}" in refusal(folder)


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("qwen1", {"no_bias": False}, "no_bias"),
        ("qwen1", {"rotary_pct": 0.25}, "rotary_pct"),
        ("qwen1", {"kv_channels": 8}, "kv_channels"),
        ("qwen1", {"quantization_config": {"bits": 4, "quant_method": "gptq"}}, "already quantised"),
        ("qwen1", {"hidden_size": "64"}, "impossible value"),
        ("qwen1", {"num_attention_heads": 0}, "impossible value"),
        ("qwen1", {"seq_length": None}, "impossible value"),
        ("chatglm3", {"rmsnorm": False}, "rmsnorm"),
        ("chatglm3", {"quantization_bit": 4}, "quantization_bit"),
        ("chatglm3", {"rope_ratio": 16}, "rope_ratio"),
    ],
)
def test_another_layout_than_the_published_one_is_refused(published, kind: str, fields: dict, expected: str):
    folder = published(kind)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | fields))
    assert expected in refusal(folder)


def test_a_config_without_a_needed_field_is_refused(published):
    folder = published("chatglm3")
    raw = json.loads((folder / "config.json").read_text())
    for field in ("multi_query_group_num", "hidden_size", "seq_length"):
        (folder / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if key != field}))
        assert field in refusal(folder)


def test_only_its_own_code_could_load_it(published):
    folder = published("qwen1")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"model_type": "baichuan"}))
    assert "does not know the checkpoint's model type 'baichuan' and only its own code could load it" in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', '{"metadata": {}}'])
def test_a_damaged_index_is_refused(published, content: str):
    folder = published("qwen1")
    (folder / "model.safetensors.index.json").write_text(content)
    assert "index of the weight files is damaged" in refusal(folder)


def test_nothing_in_a_bin_file_is_run(published, tmp_path: Path):
    import os

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder = published("chatglm3")
    torch.save({"transformer.extra": Attack()}, weight_files(folder)[0])
    assert "damaged" in refusal(folder)
    assert not (tmp_path / "ran").exists()

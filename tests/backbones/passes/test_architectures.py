"""Architectures of every kind of layer: label scores and loss are those of teacher forcing, or the LLM is refused.

Teacher forcing here is transformers' own pass of one whole sequence: no padding, no trie, nothing read before. Windows
are shorter than the sequences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from whole_pass import model_of

from msekit.backbones import backbone as backbone_module
from msekit.backbones.backbone import Backbone
from msekit.backbones.passes.choose import PassSettings
from msekit.data.batches.batch import Batch
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.model.mse_model import MSEModel

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.2,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 16}
AT_ONCE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "olmo2": {},
    "cohere": {},
    "granite": {},
    "glm4": {},
    "phi": {},
    "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "gpt_neox": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "stablelm": {},
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS,
    "olmoe": EXPERTS,
    "smollm3": {"use_sliding_window": False},
    "nemotron": {},
    "deepseek_v3": EXPERTS
    | {
        "head_dim": None,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
    }
    | {"qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "first_k_dense_replace": 1},
    # with windows
    "mistral": {"sliding_window": 16},
    "phi3": {"sliding_window": 16},
    "starcoder2": {"sliding_window": 16},
    "qwen2": WINDOW | {"use_sliding_window": True},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW,
    "cohere2": WINDOW,
    "exaone4": WINDOW,
    "olmo3": WINDOW,
    "phimoe": EXPERTS | {"sliding_window": 16},
    "modernbert-decoder": {"local_attention": 32, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_oss": WINDOW | EXPERTS,
    "llama4_text": {"attention_chunk_size": 16, "intermediate_size_mlp": 96, "num_local_experts": 4},
}
"""Label tries are read at once."""
ONE_BY_ONE: dict[str, dict[str, Any]] = {
    "falcon": {"head_dim": None, "alibi": True, "new_decoder_architecture": False, "multi_query": True},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    # with layers that keep a state
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR | EXPERTS | {"shared_expert_intermediate_size": 32},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64, "attention_window_size": 16},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 128},
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 96},
    "jamba": EXPERTS | {"use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1},
    "nemotron_h": MAMBA
    | {"mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1, "chunk_size": 16}
    | {"num_hidden_layers": 3, "layers_block_type": ["mamba", "attention", "mlp"]},
    "zamba2": MAMBA
    | {"layers_block_type": ["mamba", "hybrid"], "mamba_headdim": 16, "n_mamba_heads": 8, "mamba_ngroups": 1}
    | {"head_dim": None, "num_mem_blocks": 1, "use_mem_rope": True},
    "minimax": EXPERTS | {"layer_types": ["linear_attention", "full_attention"]},
}
"""They are read a branch at a time, and a warning says so."""
REFUSED: dict[str, dict[str, Any]] = {
    "gemma4_text": WINDOW
    | {"global_head_dim": 16, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 320},
    "gemma3n_text": WINDOW
    | {"hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 320, "num_kv_shared_layers": 0},
}
"""They read more of a token than its embedding."""
TEXTS = ("ok", "a rather longer text of more than one window", "")


def backbone_of(kind: str, fields: dict[str, Any], tiny: Backbone, passes: str = "auto") -> Backbone:
    torch.manual_seed(0)
    sizes = {name: value for name, value in (SIZES | fields).items() if value is not None}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    return Backbone(kind, model, tiny.tokenizer, "random", PassSettings(passes))


def alone(batch: Batch, row: int) -> Batch:
    part = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    part = {name: value if value is None else value[row : row + 1] for name, value in part.items()}
    part["text_ids"] = part["text_ids"][:, : int(part["text_lengths"])]
    return Batch(**part)


def teacher_forced(model: MSEModel, batch: Batch, row: int, label: int) -> float:
    """Log-probability of a label's tokens."""
    backbone, layout, one = model.backbone, model.layout, alone(batch, row)
    text = backbone.embed(one.text_ids)
    pseudo = model.adapter(text, one.text_mask, one.audio, one.audio_lengths, one.vision, one.vision_lengths)
    tokens = model.labels.tokens[label]

    def embedded(ids: list[int]) -> Tensor:
        return backbone.embed(torch.tensor([ids], dtype=torch.long))

    parts = [embedded(layout.opening), pseudo, text, embedded(layout.closing), embedded(tokens)]
    whole = torch.cat(parts, dim=1)
    of_tokens = backbone.model(inputs_embeds=whole, use_cache=False).logits[0].log_softmax(-1)[-len(tokens) - 1 : -1]
    return float(of_tokens.gather(1, torch.tensor(tokens)[:, None]).sum())


@torch.no_grad()
def assert_exact(backbone: Backbone) -> None:
    """Two of the labels' scores, and the loss, of a padded batch."""
    for dataset, prompt_first, labels in (("synthetic-msa", True, (0, 35)), ("synthetic-erc", False, (1,))):
        model, batch = model_of(backbone, DATASETS[dataset], prompt_first, TEXTS)
        scores = model.labels.log_probabilities(model.score(batch).numpy())[:, list(labels)]
        forced = [[teacher_forced(model, batch, row, label) for label in labels] for row in range(len(TEXTS))]
        assert np.abs(scores - np.array(forced)).max() < 1e-3
        loss = -sum(teacher_forced(model, batch, row, int(batch.label[row])) for row in range(len(TEXTS)))
        assert float(model(batch)) == pytest.approx(loss, abs=3e-3)


@pytest.mark.parametrize("kind", AT_ONCE)
def test_a_label_trie_at_once_is_teacher_forcing(kind: str, tiny: Backbone):
    backbone = backbone_of(kind, AT_ONCE[kind], tiny)
    assert_exact(backbone)
    assert not {"label-tree", "padded-batch"} & set(backbone.passes.refused)
    assert "prefix" in backbone.passes.uses
    assert not any("Error" in reason for reason in backbone.passes.refused.values())


def test_an_mlp_that_says_how_experts_were_chosen_is_shortened_too(tiny: Backbone, caplog: pytest.LogCaptureFixture):
    backbone = backbone_of("gpt_oss", AT_ONCE["gpt_oss"], tiny)
    assert "last-layer" in backbone.passes.uses
    assert not [line for line in caplog.messages if "does without" in line]


@pytest.mark.parametrize("kind", ONE_BY_ONE)
def test_a_branch_at_a_time_is_teacher_forcing(kind: str, tiny: Backbone, caplog: pytest.LogCaptureFixture):
    backbone = backbone_of(kind, ONE_BY_ONE[kind], tiny)
    assert_exact(backbone)
    assert "label-tree" in backbone.passes.refused
    assert sum("labels are scored one at a time" in line for line in caplog.messages) == 1
    assert not any("Error" in line for line in [*caplog.messages, *backbone.passes.refused.values()])


@pytest.mark.parametrize("kind", ["gemma3_text", "lfm2"])
def test_the_plain_pass_is_exact_too(kind: str, tiny: Backbone):
    assert_exact(backbone_of(kind, (AT_ONCE | ONE_BY_ONE)[kind], tiny, "plain"))


@pytest.mark.parametrize("kind", REFUSED)
def test_an_llm_that_reads_more_than_embeddings_is_refused(kind: str, tiny: Backbone):
    with pytest.raises(MsekitError, match=r"cannot be given pseudo tokens: Gemma\w+ reads an embedding of each token"):
        backbone_of(kind, REFUSED[kind], tiny)


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_found_out_too_where_no_setting_tells(kind: str, tiny: Backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backbone_module, "check_takes_embeddings", lambda model: None)
    with pytest.raises(MsekitError, match="cannot be given pseudo tokens") as error:
        _ = backbone_of(kind, REFUSED[kind], tiny).passes
    assert "\n" not in str(error.value)


def test_the_docs_name_them():
    text = " ".join((Path(__file__).parents[3] / "docs" / "backbones.md").read_text(encoding="utf-8").split())
    for what, kinds in (("At once", AT_ONCE), ("One at a time", ONE_BY_ONE), ("Refused", REFUSED)):
        assert f"**{what}**: {', '.join(f'`{kind}`' for kind in sorted(kinds))}." in text

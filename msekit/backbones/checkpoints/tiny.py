"""`tiny-llama`: two random Llama layers with a byte-level tokenizer, built on the spot. For tests and dry runs."""

from __future__ import annotations

from pathlib import Path

from msekit.backbones.catalogue import TINY
from msekit.backbones.checkpoints.built_once import built_once
from msekit.backbones.checkpoints.quiet import quiet_transformers

_SEED = 20260101


def tiny_llama_folder() -> Path:
    """The checkpoint's folder, built on first use in well under a second."""
    return built_once(TINY, _build)


def _build(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.2,  # strong enough that the pseudo tokens reach the logits
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(_SEED)
        LlamaForCausalLM(config).save_pretrained(folder)

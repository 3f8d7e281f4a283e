"""Checkpoints that state what is not so: refused in a line before anything of that size is made."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.checkpoints.tokenizer_growth import refuse_growth
from msekit.backbones.checkpoints.weight_files import weight_files
from msekit.backbones.load import load_backbone
from msekit.backbones.shape import shape_of, text_width
from msekit.errors import MsekitError
from msekit.planning.plan_run import tokenizer_of


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the tiny LLM's."""
    folder = tmp_path / "llm"
    shutil.copytree(tiny_llama_folder(), folder)
    return folder


def change(folder: Path, name: str, how: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / name).read_text(encoding="utf-8"))
    how(document)
    (folder / name).write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 10**6, "states 1000000 layers"),
        ("vocab_size", 2**31, "no tensor of the checkpoint is so large"),
        ("hidden_size", 10**9, "no tensor of the checkpoint is so large"),
        ("intermediate_size", 10**12, "no tensor of the checkpoint is so large"),
        ("num_attention_heads", 2**40, "no tensor of the checkpoint is so large"),
        ("head_dim", 10**9, "no tensor of the checkpoint is so large"),
        ("hidden_size", "64", "cannot be loaded"),
        ("rms_norm_eps", 1, "cannot be loaded"),
        ("vocab_size", None, "cannot be loaded"),
    ],
)
def test_sizes_that_a_configuration_merely_states(checkpoint: Path, key: str, value: Any, message: str) -> None:
    change(checkpoint, "config.json", lambda config: config.update({key: value}))
    started = time.process_time()
    with pytest.raises(MsekitError, match=message):
        load_backbone(str(checkpoint), device="cpu")
    assert time.process_time() - started < 10


@pytest.mark.parametrize("text", ["[" * 100_000, '{"hidden_size": ' + "9" * 5000 + "}", "[]", '{"a": "\\ud800"}', ""])
def test_configurations_that_are_none(checkpoint: Path, text: str) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        whole = (checkpoint / name).read_text(encoding="utf-8")
        (checkpoint / name).write_text(text, encoding="utf-8")
        with pytest.raises(MsekitError):
            load_backbone(str(checkpoint), device="cpu")
        if name == "config.json":
            for ask in (shape_of, text_width):
                with pytest.raises(MsekitError):
                    ask(str(checkpoint))
        (checkpoint / name).write_text(whole, encoding="utf-8")


def test_layers_are_not_built_for_a_plan_either(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 10000000}')
    with pytest.raises(MsekitError, match="states 10000000 layers"):
        shape_of(str(tmp_path))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "", ".", "a\0b", 3, None])
def test_an_index_names_files_beside_it(tmp_path: Path, name: Any) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(MsekitError, match="index of the weight files is damaged"):
        weight_files(tmp_path)
    for document in ('{"a": 3}', "[]", '{"weight_map": []}', '{"weight_map": {}}', "[" * 10_000):
        index.write_text(document)
        with pytest.raises(MsekitError, match="index of the weight files is damaged"):
            weight_files(tmp_path)


def test_a_tokenizer_of_more_tokens_than_the_llm_has(checkpoint: Path) -> None:
    """On a GPU such a token would end the process."""
    backbone = load_backbone(str(checkpoint), device="cpu")
    backbone.tokenizer.add_tokens(["zzz"])
    assert backbone.encode("a well known text")
    for ask in (backbone.encode, lambda text: backbone.encode_all(["a", text])):
        with pytest.raises(MsekitError, match=r"writes token \d+, and the LLM has embeddings for \d+"):
            ask("zzz")
    backbone.tokenizer.eos_token = "zzz"
    with pytest.raises(MsekitError, match="writes token"):
        _ = backbone.end


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(*entries: bytes) -> str:
    """A table of sentencepiece's without a trie."""
    return base64.b64encode(struct.pack("<I", 4) + bytes(4) + b"\0".join([*entries, b""])).decode()


A = replaced({"String": "a"}, "a" * 1000)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [A] * 4}}, "texts up to 2e\\+12 times"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [A]}]}}, "texts"),
        ({"normalizer": replaced({"Regex": ""}, "a" * 500)}, "texts up to 1e\\+03 times"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap(b"x" * 5000)}}, "texts up to 1e\\+04"),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 5000}}, "texts"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 30}}, "texts up to 1.07e"),
        ({"decoder": {"type": "Sequence", "decoders": [A] * 4}}, "tokens up to 1e\\+12 times"),
    ],
)
def test_a_tokenizer_that_fills_the_memory(checkpoint: Path, part: dict[str, Any], what: str) -> None:
    """Tried nowhere: the library ends the process where the memory ends."""
    change(checkpoint, "tokenizer.json", lambda tokenizer: tokenizer.update(part))
    for load in (lambda: load_backbone(str(checkpoint), device="cpu"), lambda: tokenizer_of(shape_of(str(checkpoint)))):
        with pytest.raises(MsekitError, match=f"the tokenizer makes {what}"):
            load()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "Sequence", "normalizers": [{"type": "NFKD"}, replaced({"String": " "}, "▁")]},
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replaced({"String": " "}, "▁")]},
        replaced({"Regex": " {2,}"}, "▁"),
        {"type": "Precompiled", "precompiled_charsmap": charsmap(b"x" * 33)},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
    ],
)
def test_tokenizers_as_they_are_published(tmp_path: Path, part: dict[str, Any]) -> None:
    stated = {"normalizer": part, "pre_tokenizer": {"type": "ByteLevel"}, "decoder": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stated), encoding="utf-8")
    refuse_growth(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"normalizer": 3}', '{"normalizer": {"type": "Replace"}}', "{", ""]
)
def test_tokenizers_that_are_none(checkpoint: Path, text: str) -> None:
    (checkpoint / "tokenizer.json").write_text(text, encoding="utf-8")
    for load in (lambda: load_backbone(str(checkpoint), device="cpu"), lambda: tokenizer_of(shape_of(str(checkpoint)))):
        with pytest.raises(MsekitError, match="the tokenizer cannot be loaded"):
            load()

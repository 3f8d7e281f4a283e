"""Checkpoints of other kinds: GGUF is loaded, the text part of vision-language models too; the rest is named, with what
to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from msekit.backbones.checkpoints.download import hub_folder
from msekit.backbones.checkpoints.gguf import copy_name
from msekit.backbones.checkpoints.quiet import quiet_transformers
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.backbones.load import checkpoint_folder, load_backbone
from msekit.cli.main import app
from msekit.errors import MsekitError

TRAIN = ["train", "--dataset", "synthetic-erc", "--recipe", "kit", "--epochs", "1", "--limit-train", "16"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = SIZES | {"num_key_value_heads": 2, "vocab_size": 300, "head_dim": 8}
VISION = SIZES | {"image_size": 28, "patch_size": 14}


def permuted(weight: torch.Tensor, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in the order of llama.cpp."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape).numpy()


def write_gguf(file: Path, kind: Any = None, extra: dict[str, Any] | None = None, stray: bool = False) -> Path:
    """`tiny-llama` as a GGUF file; its matrices in 32 bit, or as `kind` says."""
    folder = tiny_llama_folder()
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([3] * 3 + [1] * (len(vocabulary) - 3))
    writer.add_token_scores([0.0] * len(vocabulary))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in (extra or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in tensors.items():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        values = permuted(tensor, heads) if heads else tensor.numpy()
        native = f"{names.get_name(name.removesuffix('.weight'))}.weight"
        if kind is not None and values.ndim > 1:
            writer.add_tensor(native, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(native, values)
    if stray:
        writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def logits(backbone: Any) -> torch.Tensor:
    with torch.no_grad():
        return backbone.model(torch.tensor([[1, 40, 50, 60, 70]])).logits


def test_a_gguf_file_is_the_model_that_it_was_made_of(tmp_path: Path, tiny: Any, capsys: pytest.CaptureFixture[str]):
    file = write_gguf(tmp_path / "small.gguf")
    loaded = load_backbone(str(file), device="cpu")
    torch.testing.assert_close(logits(loaded), logits(tiny), atol=1e-5, rtol=0)
    assert loaded.encode("joy and anger") == tiny.encode("joy and anger")
    assert "converting small.gguf" in capsys.readouterr().err
    again = load_backbone(str(tmp_path), device="cpu")  # the folder of one file; its copy is used
    assert again.fingerprint == loaded.fingerprint
    assert "converting" not in capsys.readouterr().err
    file.touch()
    assert checkpoint_folder(str(file)).name == copy_name(file)


def test_weights_in_blocks_are_what_the_blocks_say(tmp_path: Path, tiny: Any):
    exact, blocks = logits(tiny), gguf.GGMLQuantizationType
    for kind, bound in ((blocks.F16, 1e-2), (blocks.Q8_0, 0.1)):
        loaded = load_backbone(str(write_gguf(tmp_path / f"{kind.name}.gguf", kind)), device="cpu")
        assert 0 < (logits(loaded) - exact).abs().max() < bound * exact.abs().max()
    stored = load_file(checkpoint_folder(str(tmp_path / "F16.gguf")) / "model.safetensors")
    assert stored["model.layers.0.mlp.up_proj.weight"].dtype == torch.float16


@pytest.mark.slow
def test_a_run_on_a_gguf_file(tmp_path: Path):
    file = write_gguf(tmp_path / "small.gguf")
    for command in (
        [*TRAIN, "--backbone", str(file), "--output", str(tmp_path / "run"), "--set", "evaluation.bootstrap=0"],
        ["evaluate", str(tmp_path / "run" / "seed-1111")],
        ["backbone", "info", str(file)],
        ["plan", "--backbone", str(file), "--dataset", "synthetic-erc"],
        ["count-params", "--backbone", str(file), "--dataset", "synthetic-erc"],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output, done.exception)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"extra": {"llama.rope.scaling.type": "yarn"}}, "scales its positions.*yarn.*original checkpoint"),
        ({"extra": {"llama.rope.scaling.factor": 4.0}}, "scales its positions"),
        ({"stray": True}, "passes over 1 of the GGUF file's 22 tensors: rope_freqs.weight"),
    ],
)
def test_what_the_reader_passes_over_is_refused(tmp_path: Path, made: dict[str, Any], message: str):
    with pytest.raises(MsekitError, match=message):
        checkpoint_folder(str(write_gguf(tmp_path / "small.gguf", **made)))


def test_other_gguf_files_are_refused(tmp_path: Path):
    unknown = gguf.GGUFWriter(tmp_path / "unknown.gguf", "whisper-next")
    unknown.write_header_to_file()
    unknown.write_kv_data_to_file()
    unknown.close()
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.gguf").write_text("no such thing")
    (tmp_path / "part-00001-of-00003.gguf").write_bytes(whole)
    for name, message in {
        "unknown.gguf": "does not read GGUF files of the architecture 'whisper-next'.*It reads: .*llama",
        "cut.gguf": "cannot be read",
        "text.gguf": "cannot be read",
        "part-00001-of-00003.gguf": "in parts.*llama-gguf-split --merge part-00001-of-00003.gguf part.gguf",
        "missing.gguf": "no such GGUF file.*Beside it there are: cut.gguf",
        "": "there are 5 GGUF files",
    }.items():
        with pytest.raises(MsekitError, match=message):
            checkpoint_folder(str(tmp_path / name))


def folder_of(place: Path, files: dict[str, Any]) -> Path:
    place.mkdir()
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return place


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "org/base"}},
            r"an adapter of an LLM \(LORA\).*org/base.*Merge.*merge_and_unload.*--backbone own-merged",
        ),
        ({"adapter_config.json": {}, "config.json": {"model_type": "llama"}}, r"it does not name(?!.*None).*Merge it"),
        ({"adapter_config.json": "{"}, "adapter_config.json cannot be read"),
        *(
            (
                {"config.json": {"model_type": "llama", "quantization_config": {"quant_method": kind}}},
                f"by {kind}.*--qu",
            )
            for kind in ("gptq", "awq", "fp8", "compressed-tensors", "bitsandbytes", "mxfp4")
        ),
        (
            {"config.json": {"model_type": "llava", "text_config": {"quantization_config": {"quant_method": "a"}}}},
            "by a",
        ),
        ({"params.json": {}, "consolidated.00.pth": ""}, "publisher's own format"),
        ({"model.onnx": ""}, "an ONNX model"),
        (
            {"checkpoint-500/config.json": {}, "snapshots/ab/config.json": {}},
            "Below it there are: checkpoint-500, snap",
        ),
        ({"notes.txt": ""}, "no config.json: not a checkpoint"),
    ],
)
def test_folders_of_other_kinds_are_named_before_torch(tmp_path: Path, files: dict[str, Any], message: str):
    folder = folder_of(tmp_path / "own", files)
    with pytest.raises(MsekitError, match=message):
        checkpoint_folder(str(folder))
    done = CliRunner().invoke(app, [*TRAIN, "--backbone", str(folder), "--output", str(tmp_path / "run")])
    assert isinstance(done.exception, MsekitError)
    assert "\n" not in str(done.exception)


def test_a_plug_in_is_no_backbone():
    run = Path(__file__).parents[2] / "golden" / "run" / "finished" / "seed-1111"
    done = CliRunner().invoke(app, [*TRAIN, "--backbone", str(run), "--output", "/nowhere"])
    assert "a trained plug-in, not an LLM" in str(done.exception)
    assert "--backbone tiny-llama" in str(done.exception)


def test_a_file_of_a_checkpoint_is_not_its_folder():
    file = tiny_llama_folder() / "model.safetensors"
    with pytest.raises(MsekitError, match=r"a file, not a checkpoint's folder.*Give the folder"):
        checkpoint_folder(str(file))


def test_repositories_of_other_kinds_are_told_before_their_weights_are_fetched(hub: HubServer):
    big = b"w" * 4096
    hub.add("org/files-GGUF", {"small-Q4_K_M.gguf": big, "README.md": b""})
    hub.add("org/lora", {"adapter_config.json": b'{"base_model_name_or_path": "org/base"}', "adapter.bin": big})
    quantised = json.dumps({"model_type": "llama", "quantization_config": {"quant_method": "awq"}}).encode()
    hub.add("org/awq", {"config.json": quantised, "model.safetensors": big})
    hub.add("org/raw", {"params.json": b"{}", "consolidated.00.pth": big})
    for repo, message in {
        "org/files-GGUF": "holds GGUF files: small-Q4_K_M.gguf.*hf download org/files-GGUF small-Q4_K_M.gguf",
        "org/lora": "it belongs to org/base",
        "org/awq": "already quantised, by awq",
        "org/raw": "publisher's own format",
    }.items():
        with pytest.raises(MsekitError, match=message):
            hub_folder(repo)
    fetched = [request.path for request in hub.requests if request.method == "CONTENT"]
    assert not [path for path in fetched if path.endswith((".gguf", ".safetensors", ".bin", ".pth"))]


def vision_language(folder: Path, kind: str) -> Path:
    """A small vision-language checkpoint with a tokenizer."""
    config_class = transformers.CONFIG_MAPPING[kind]
    if kind in ("idefics3", "smolvlm"):
        config = config_class(text_config=TEXT | {"model_type": "llama"}, vision_config=VISION, pad_token_id=0)
    elif kind == "paligemma":
        config = config_class(text_config=TEXT | {"model_type": "gemma"}, vision_config=VISION, projection_dim=32)
    else:
        config = config_class(text_config=TEXT | {"model_type": "llama"}, vision_config=VISION)
    model_class = transformers.AutoModelForImageTextToText
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(1)
        model_class.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_llama_folder() / name, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llava", "llava_next", "idefics3", "smolvlm", "vipllava"])
def test_the_text_part_of_a_vision_language_model(tmp_path: Path, kind: str):
    folder = vision_language(tmp_path / kind, kind)
    loaded = load_backbone(str(folder), device="cpu")
    with quiet_transformers(), torch.no_grad():
        whole = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        text = whole.model.language_model if hasattr(whole.model, "language_model") else whole.model.text_model
        hidden = text(torch.tensor([[1, 40, 50, 60, 70]])).last_hidden_state
        torch.testing.assert_close(logits(loaded), whole.lm_head(hidden), atol=1e-5, rtol=0)
    assert not [name for name, _ in loaded.model.named_parameters() if "vision" in name]


@pytest.mark.slow
def test_what_the_text_part_lacks_is_refused(tmp_path: Path):
    folder = vision_language(tmp_path / "llava", "llava")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(MsekitError, match="lacks 1 of the weights of LlamaForCausalLM"):
        load_backbone(str(folder), device="cpu")
    save_file(tensors | {name.replace("up_proj.weight", "up_proj.bias"): torch.ones(64)}, folder / "model.safetensors")
    with pytest.raises(MsekitError, match="holds 1 weights that LlamaForCausalLM has no place for"):
        load_backbone(str(folder), device="cpu")


def test_a_text_part_that_reads_both_ways_is_said(tmp_path: Path):
    folder = vision_language(tmp_path / "paligemma", "paligemma")
    with pytest.raises(MsekitError, match="text part reads in both directions"):
        load_backbone(str(folder), device="cpu")


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_a_text_part_without_a_class_is_said(tmp_path: Path, kind: str):
    folder = tmp_path / kind
    transformers.CONFIG_MAPPING[kind](text_config=TEXT).save_pretrained(folder)
    save_file({"model.language_model.norm.weight": torch.ones(32)}, folder / "model.safetensors")
    with pytest.raises(MsekitError, match=rf"vision-language model \({kind}\).*text LLM of the same family"):
        load_backbone(str(folder), device="cpu")

"""`convert` writes what stock transformers loads, with the same logits and tokens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from msekit.backbones.checkpoints.convert import convert
from msekit.backbones.checkpoints.weight_files import weight_files
from msekit.backbones.load import load_backbone
from msekit.errors import MsekitError
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("qwen1", {}),
        ("qwen1", {"tie_word_embeddings": True}),
        ("chatglm3", {}),
        ("chatglm3", {"torch_dtype": "float16"}),
    ],
)
def test_stock_classes_load_it(published, tmp_path: Path, kind: str, fields: dict):
    source = published(kind, **fields)
    done = convert(source, tmp_path / "native", QUIET)
    assert len(weight_files(done.folder)) == len(weight_files(source)) > 1, "file by file"
    model, info = AutoModelForCausalLM.from_pretrained(done.folder, output_loading_info=True, dtype=torch.float32)
    assert type(model).__name__ == done.architecture
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    backbone = load_backbone(str(source), dtype="fp32", device="cpu")
    ids = torch.randint(500, (2, 17), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert (model(ids).logits - backbone.model(ids).logits).abs().max() < 2e-5
    assert sum(parameter.numel() for parameter in model.parameters()) == done.parameters
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    for text in ("", "so <|im_start|> it </s> is [gMASK] sop", "情感 🙂\n -0.4"):
        assert tokenizer(text)["input_ids"] == backbone.tokenizer(text)["input_ids"]
    assert model.config.eos_token_id == backbone.end
    assert str(model.config.dtype) == "torch.float32"
    generated = model.generate(ids[:1], max_new_tokens=3, do_sample=False)
    assert generated.shape[1] <= 20


def test_the_converted_checkpoint_is_a_backbone_of_its_own(published, tmp_path: Path):
    native = convert(published("qwen1"), tmp_path / "native", QUIET).folder
    assert load_backbone(str(native), device="cpu").bos == [305]


def test_refusals_leave_nothing_behind(published, tmp_path: Path):
    source = published("qwen1")
    target = tmp_path / "native"
    weight_files(source)[-1].unlink()
    with pytest.raises(MsekitError, match="missing"):
        convert(source, target, QUIET)
    target.mkdir()
    with pytest.raises(MsekitError, match="exists already"):
        convert(source, target, QUIET)
    target.rmdir()
    assert {path.name for path in tmp_path.iterdir()} == {source.name}
    from msekit.backbones.checkpoints.tiny import tiny_llama_folder

    with pytest.raises(MsekitError, match="'llama' is not converted"):
        convert(tiny_llama_folder(), target, QUIET)


@pytest.mark.slow
def test_memory_holds_one_file_at_a_time(published, tmp_path: Path):
    """70 MB in twenty-odd files: the peak stays far below them all."""
    source = published(
        "qwen1", vocab_size=1000, hidden_size=256, kv_channels=64, intermediate_size=4096, num_hidden_layers=9
    )
    program = (
        "import resource, sys; from pathlib import Path; from msekit.backbones.checkpoints.convert import convert\n"
    )
    program += "from msekit.reporter import Reporter; import transformers.models.qwen2.modeling_qwen2\n"
    program += "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    program += "convert(Path(sys.argv[1]), Path(sys.argv[2]), Reporter(quiet=True))\n"
    program += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    total = sum(file.stat().st_size for file in weight_files(source))
    done = subprocess.run(
        [sys.executable, "-c", program, source, tmp_path / "native"], capture_output=True, text=True, check=True
    )
    assert total > 60e6
    assert int(done.stdout) * 1024 < total / 2 + 20e6

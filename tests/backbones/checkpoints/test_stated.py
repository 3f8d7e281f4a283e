"""What a config.json alone tells is told before torch: by transformers' own tables, read without importing it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from hub_server import HubServer
from transformers.models.auto import modeling_auto

from msekit.backbones.checkpoints import stated
from msekit.backbones.checkpoints.download import hub_folder
from msekit.backbones.checkpoints.stated import refuse_stated, tables
from msekit.backbones.load import architecture_of
from msekit.errors import MsekitError

OTHERS = (
    ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM is no causal LM"),
    ({"model_type": "deberta-v2"}, "reads a text in both directions"),
    ({"model_type": "t5", "is_encoder_decoder": True, "architectures": ["T5Model"]}, "T5Model is no causal LM"),
    ({"model_type": "bart", "is_encoder_decoder": True}, "answers what an encoder has read"),
    ({"model_type": "t5gemma"}, "t5gemma is no causal LM"),
    ({"model_type": "vit"}, "vit is no causal LM"),
    ({"model_type": "siglip"}, "siglip is no causal LM"),
    ({"model_type": "wav2vec2"}, "wav2vec2 is no causal LM"),
    ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "it judges a text"),
    ({"model_type": "qwen2", "architectures": ["Qwen2ForTokenClassification"]}, "it judges a text"),
    ({"model_type": "qwen2_vl", "text_config": {"model_type": "qwen2_vl_text"}}, "a vision-language model"),
    ({"model_type": "paligemma", "text_config": {"use_bidirectional_attention": True}}, "reads in both directions"),
    ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "already quantised, by gptq"),
    ({"model_type": "no-such-kind"}, "does not know the checkpoint's model type 'no-such-kind'"),
    ({"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, "only its own code could load it"),
)
PROGRAM = """
import json, sys, time
from pathlib import Path
begun = time.perf_counter()
from msekit.errors import MsekitError
from msekit.runs.look_first import look_at_backbone
said = []
for number, config in enumerate(json.loads(sys.argv[1])):
    folder = Path(sys.argv[2]) / str(number)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    try:
        look_at_backbone(str(folder))
        said.append("")
    except MsekitError as error:
        said.append(str(error))
loaded = [name for name in ("torch", "transformers") if name in sys.modules]
print(json.dumps([said, loaded, time.process_time()]))
"""


def test_told_in_a_moment(tmp_path: Path):
    configs = json.dumps([config for config, _ in OTHERS] + [{"model_type": kind} for kind in ("llama", "qwen")])
    done = subprocess.run([sys.executable, "-c", PROGRAM, configs, str(tmp_path)], capture_output=True, check=True)
    said, loaded, seconds = json.loads(done.stdout)
    assert not loaded
    assert seconds < 2  # half a second on a quiet machine
    assert said[len(OTHERS) :] == ["", ""]
    for (config, expected), message in zip(OTHERS, said, strict=False):
        assert expected in message, config
        assert "Use " in message


def test_the_tables_are_those_of_transformers():
    for name in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MASKED_LM"):
        table = f"MODEL_FOR_{name}_MAPPING_NAMES"
        assert tables()[table] == set(getattr(modeling_auto, table))
    assert frozenset().union(*tables().values()) >= set(transformers.CONFIG_MAPPING)


def test_a_model_that_writes_is_never_refused():
    """By the configuration that transformers itself gives to each kind that writes, as it is stored."""
    looked_at = 0
    for kind in sorted(tables()["MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"] & set(transformers.CONFIG_MAPPING)):
        written = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
        both_ways = kind in tables()["MODEL_FOR_MASKED_LM_MAPPING_NAMES"]
        config: dict[str, Any] = {"model_type": kind, "architectures": [written], "is_decoder": both_ways}
        refuse_stated(config, "here")
        looked_at += 1
    assert looked_at > 150


@pytest.mark.parametrize("kind", [{}, [], None, 3, "x" * 10_000])
def test_a_kind_that_is_no_name(kind: object, tmp_path: Path):
    refuse_stated({"model_type": "llava", "text_config": {"model_type": kind}}, "here")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "architectures": kind}))
    with pytest.raises(MsekitError, match="does not know the checkpoint's model type") as refusal:
        architecture_of(tmp_path)
    assert len(str(refusal.value)) < 400


def test_another_transformers_tells_nothing_early(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stated, "tables", dict)
    refuse_stated({"model_type": "bert"}, "here")


def test_a_repository_is_told_by_its_configuration(hub: HubServer):
    for name, config in (("bert", {"model_type": "bert"}), ("t5", {"model_type": "t5", "is_encoder_decoder": True})):
        hub.add(f"org/{name}", {"config.json": json.dumps(config).encode(), "model.safetensors": b"w" * 4096})
        with pytest.raises(MsekitError, match="no causal LM"):
            hub_folder(f"org/{name}")
    assert not hub.downloads("model.safetensors")

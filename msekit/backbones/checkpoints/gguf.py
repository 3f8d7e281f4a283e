"""A GGUF file → a checkpoint of transformers, in the cache; read by transformers' own reader.

The reader knows some architectures, and passes over what it has no name for. A file of which it leaves out a tensor or
a scaling of the positions would answer otherwise than the model does, and is refused.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from msekit.backbones.checkpoints.built_once import built_once
from msekit.backbones.checkpoints.quiet import quiet_transformers
from msekit.errors import MsekitError
from msekit.paths import cache_root
from msekit.reporter import Reporter

_LOOKED_AT = 1 << 20  # bytes at either end of the file that name its copy, beside its size and time of change
_ORIGINAL = "Use the original checkpoint of this model."


def gguf_folder(file: Path) -> Path:
    """The converted checkpoint's folder; the first use writes it, in 16 bit where the file is, else in 32.

    Raises:
        MsekitError: Not a GGUF file, an architecture that the reader does not know, something in it that it passes
            over, or too little space.
    """
    return built_once(copy_name(file), lambda folder: _build(file, folder))


def copy_name(file: Path) -> str:
    """The name of a file's converted copy in the cache."""
    stat = file.stat()
    digest = hashlib.blake2b(f"{stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=8)
    with file.open("rb") as stream:
        digest.update(stream.read(_LOOKED_AT))
        stream.seek(max(stat.st_size - _LOOKED_AT, 0))
        digest.update(stream.read())
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in file.stem)[:80]
    return f"gguf-{stem}-{digest.hexdigest()}"


def _build(file: Path, folder: Path) -> None:
    with _explained(file):
        reader = _opened(file)
    architecture = _checked_architecture(reader, file)
    dtype, size = _stored(reader)
    _refuse_scaled_positions(reader, architecture, file)
    reporter, free = Reporter(), shutil.disk_usage(cache_root()).free
    if free < size:
        raise MsekitError(f"{size / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free", where=cache_root())
    sizes = f"{file.stat().st_size / 1e9:.2f} GB to {size / 1e9:.2f} GB of safetensors in {str(dtype)[6:]}"
    reporter.note(f"converting {file.name}, {sizes}, once, into {cache_root() / 'backbones'}")
    with reporter.status(f"converting {file.name}"):
        convert(file, folder, dtype, {tensor.name for tensor in reader.tensors})


def convert(file: Path, folder: Path, dtype: Any, tensors: set[str] | None = None) -> None:
    """Write a GGUF file's model and tokenizer into a folder, as transformers reads them.

    Args:
        file: The GGUF file.
        folder: Where to write.
        dtype: torch's type of what is written.
        tensors: The names of the file's tensors, all of which must be read; None for not looking.

    Raises:
        MsekitError: The reader cannot, or passes over a tensor.
    """
    import transformers

    # the reader's own progress bar cannot be switched off
    with quiet_transformers(), redirect_stderr(StringIO()), _explained(file):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=dtype, output_loading_info=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        if tensors is not None:
            _refuse_passed_over(model, tensors, file)
    for kind in ("missing_keys", "mismatched_keys"):
        if info.get(kind):
            first = sorted(map(str, info[kind]))[0]
            raise MsekitError(f"the GGUF file lacks {len(info[kind])} weights: {first}", where=file, fix=_ORIGINAL)
    # the loader leaves traces of the file's blocks, though the tensors are plain by now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _opened(file: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(file)


def _checked_architecture(reader: Any, file: Path) -> str:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    field = reader.get_field("general.architecture")
    name = str(field.contents()) if field is not None else "unnamed"
    known = {kind.replace("_", "") for kind in GGUF_SUPPORTED_ARCHITECTURES}
    if name.replace("_", "").replace("-", "") not in known:
        listed = ", ".join(sorted(GGUF_SUPPORTED_ARCHITECTURES))
        raise MsekitError(
            f"transformers does not read GGUF files of the architecture '{name:.40}'",
            where=file,
            fix=f"{_ORIGINAL} It reads: {listed}",
        )
    return name


def _stored(reader: Any) -> tuple[Any, int]:
    """The type that the copy is written in, and its bytes: 16 bit where no weight has more or is in blocks."""
    import torch

    kinds = {str(tensor.tensor_type.name) for tensor in reader.tensors if len(tensor.shape) > 1}
    dtype = {frozenset({"F16"}): torch.float16, frozenset({"BF16"}): torch.bfloat16}.get(
        frozenset(kinds), torch.float32
    )
    return dtype, sum(int(tensor.n_elements) for tensor in reader.tensors) * dtype.itemsize


def _refuse_scaled_positions(reader: Any, architecture: str, file: Path) -> None:
    scaling = f"{architecture}.rope.scaling."
    for key in reader.fields:
        if key.startswith(scaling):
            value = reader.fields[key].contents()
            if value not in ("none", 0, 0.0, 1, 1.0) and not key.endswith("original_context_length"):
                raise MsekitError(
                    f"the GGUF file scales its positions ({key}: {value}), which transformers' reader passes over",
                    where=file,
                    fix=_ORIGINAL,
                )


def _refuse_passed_over(model: Any, tensors: set[str], file: Path) -> None:
    """Refuse a file of which a tensor is not read."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    kind = model.config.model_type
    processor = TENSOR_PROCESSORS.get(kind, TensorProcessor)(config=model.config.to_dict())
    read = set(get_gguf_hf_weights_map(model, processor))
    if left := sorted(tensors - read):
        raise MsekitError(
            f"transformers' reader passes over {len(left)} of the GGUF file's {len(tensors)} tensors: {left[0]}",
            where=file,
            fix=_ORIGINAL,
        )


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except MsekitError:
        raise
    except MemoryError as error:
        raise MsekitError("the GGUF file's weights do not fit into memory", where=file) from error
    except Exception as error:  # a damaged file makes the readers raise whatever they happen to stumble over
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise MsekitError(
            f"the GGUF file cannot be read: {reason[:200]}", where=file, fix="Fetch it again, or use the original."
        ) from error

"""What lies in a place that is named as a backbone, where it is no checkpoint that can be loaded as it is. No torch.

A GGUF file is converted (`gguf.py`). Everything else is refused, with what it is and what to do: adapters of an LLM
(LoRA), weights that are quantised already (GPTQ, AWQ, FP8, …), formats of other programs.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msekit.errors import MsekitError
from msekit.words import reason

LORA = "adapter_config.json"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_ORIGINAL = {
    "params.json": "weights in their publisher's own format",
    "consolidated.00.pth": "weights in their publisher's own format",
    "model_index.json": "a pipeline of diffusers",
    "genai_config.json": "an ONNX model",
    "model.onnx": "an ONNX model",
    "tf_model.h5": "weights of TensorFlow",
    "flax_model.msgpack": "weights of Flax",
}
_MOST_NAMED = 4


def gguf_at(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the only one in a folder that is no checkpoint; None for neither.

    Raises:
        MsekitError: There is no such file, there are several, or it is one part of several.
    """
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise MsekitError("no such GGUF file", where=path, fix=_neighbours(path))
        found = [path]
    elif path.is_dir() and not (path / "config.json").is_file() and not (path / LORA).is_file():
        found = sorted(path.glob("*.gguf"))
    else:
        return None
    if len(found) > 1 and not _SHARD.search(found[0].name):
        raise MsekitError(
            f"there are {len(found)} GGUF files: {_named(found)}", where=path, fix="Give the path of one."
        )
    if found and _SHARD.search(found[0].name):
        whole = _SHARD.sub(".gguf", found[0].name)
        raise MsekitError(
            "the GGUF file is in parts, which transformers does not read",
            where=found[0],
            fix=f"Join them: llama-gguf-split --merge {found[0].name} {whole}",
        )
    return found[0] if found else None


def refuse_other_kinds(folder: Path) -> None:
    """Refuse a folder that is no checkpoint of a whole LLM in 16 or 32 bit.

    Raises:
        MsekitError: It is something else, or a model that does not write, with what to do.
    """
    if (folder / LORA).is_file():
        raise lora(read_small(folder / LORA), folder)
    if not (folder / "config.json").is_file():
        raise MsekitError(*_no_config(folder), where=folder, fix=_below(folder))
    config = read_small(folder / "config.json")
    refuse_quantised(config, folder)
    from msekit.backbones.checkpoints.stated import refuse_stated  # of no use to whoever has an LLM already

    refuse_stated(config, folder)


def refuse_quantised(config: Mapping[str, Any], where: object) -> None:
    """Refuse a configuration that says that the weights are quantised.

    Raises:
        MsekitError: It does.
    """
    inner = config.get("text_config")
    nested = inner.get("quantization_config") if isinstance(inner, dict) else None
    stated = config.get("quantization_config") or config.get("compression_config") or nested
    if not stated:
        return
    method = str(stated.get("quant_method", "an unnamed method")) if isinstance(stated, dict) else str(stated)
    raise MsekitError(
        f"the weights are already quantised, by {method:.40}",
        where=where,
        fix="Use the original weights; --quantization nf4 or int8 quantises them on loading.",
    )


def lora(config: Mapping[str, Any], where: object) -> MsekitError:
    """The refusal of a LoRA (or another adapter of peft), with the command that merges it into its LLM."""
    kind, base = config.get("peft_type") or "LORA", config.get("base_model_name_or_path")
    if not base:
        return MsekitError(
            f"an adapter of an LLM ({kind}), not an LLM; it belongs to one that it does not name",
            where=where,
            fix="Merge it into that one first, with peft; then --backbone with the merged folder.",
        )
    target = f"{Path(str(where)).name}-merged"
    program = (
        "from peft import AutoPeftModelForCausalLM as M; from transformers import AutoTokenizer as T; "
        f"M.from_pretrained({str(where)!r}).merge_and_unload().save_pretrained({target!r}); "
        f"T.from_pretrained({str(base)!r}).save_pretrained({target!r})"
    )
    return MsekitError(
        f"an adapter of an LLM ({kind}), not an LLM; it belongs to {base}",
        where=where,
        fix=f"Merge the two first (pip install peft): python -c {shlex.quote(program)}; then --backbone {target}",
    )


def refuse_repository(files: Iterable[str], repo: str) -> None:
    """Refuse a hub repository that holds no checkpoint, by the names of its files, before anything is downloaded.

    Raises:
        MsekitError: It holds GGUF files alone, or neither a configuration nor a LoRA.
    """
    names = sorted(files)
    if "config.json" in names or LORA in names:
        return
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if ggufs:
        raise MsekitError(
            f"the repository holds GGUF files: {_named(map(Path, ggufs))}",
            where=repo,
            fix=f"Fetch one: hf download {repo} {shlex.quote(ggufs[0])} --local-dir . Then --backbone with its path.",
        )
    kind = next((what for name, what in _ORIGINAL.items() if name in names), None)
    what = f"{kind}, without the config.json of transformers" if kind else "the repository has no config.json"
    raise MsekitError(what, where=repo, fix="Look for a copy in the format of transformers (safetensors).")


def _no_config(folder: Path) -> tuple[str]:
    names = {path.name for path in folder.iterdir()}
    kind = next((what for name, what in _ORIGINAL.items() if name in names), None)
    return (
        f"no config.json: {kind}, not a checkpoint of transformers" if kind else "no config.json: not a checkpoint",
    )


def _below(folder: Path) -> str | None:
    """The checkpoints below a folder, for advice: a trainer's, or the snapshots of the hub's cache."""
    found = sorted({file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/config.json")})
    return f"Below it there are: {_named(found, folder)}." if found else None


def _neighbours(path: Path) -> str | None:
    beside = sorted(path.parent.glob("*.gguf")) if path.parent.is_dir() else []
    return f"Beside it there are: {_named(beside)}." if beside else None


def _named(paths: Iterable[Path], folder: Path | None = None) -> str:
    names = [str(path.relative_to(folder)) if folder else path.name for path in paths]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def read_small(file: Path) -> dict[str, Any]:
    """A small JSON file that holds a mapping.

    Raises:
        MsekitError: It does not, or cannot be read.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MsekitError(f"{file.name} cannot be read: {reason(error)}", where=file.parent) from error
    if not isinstance(content, dict):
        raise MsekitError(f"{file.name} is not a mapping", where=file.parent)
    return content

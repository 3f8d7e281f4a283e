"""Published checkpoint formats that transformers cannot read by itself, converted to its architectures on loading.

A format is told by `model_type` in config.json. Whatever code a repository carries is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Concatenate, ConversionOps, WeightConverter, WeightRenaming

from msekit.backbones.checkpoints.kinds import refuse_quantised
from msekit.backbones.checkpoints.weight_files import tensor_shapes
from msekit.errors import MsekitError
from msekit.words import reason

QUERY_KEY_VALUE = [".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."]


class SplitQueryKeyValue(ConversionOps):
    """One fused matrix (or bias) → query, key and value, with sizes from the config.

    transformers' own Split reads the sizes off the model's parameters, which ZeRO-3 leaves empty.
    """

    @torch.no_grad()
    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        config: Any = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """(q + k + v, …) → (q, …), (k, …), (v, …), one for each target."""
        (fused,) = input_dict.values()
        fused = fused[0] if isinstance(fused, list) else fused
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
        parts = fused.split([queries, keys, keys])
        return {target: part.contiguous() for target, part in zip(target_patterns, parts, strict=True)}

    @property
    def reverse_op(self) -> ConversionOps:
        """What saving in the original format would do."""
        return Concatenate(0)


@dataclass(frozen=True)
class Format:
    """A published format and the architecture of transformers that computes the same."""

    model_class: Any
    """A subclass of the architecture that carries the conversion; the architecture itself stays untouched."""
    stock_class: str
    """The architecture's name."""
    native_config: Callable[[dict[str, Any]], PreTrainedConfig]
    """config.json → the architecture's config."""
    tensors: Callable[[dict[str, Any]], dict[str, tuple[int, ...]]]
    """config.json → every tensor of the published format that carries weights, and its shape."""
    head: str
    """The tensor of the LM head; a checkpoint with tied embeddings may lack it."""
    optional: tuple[str, ...]
    """Tensors without weights that a checkpoint may carry."""
    renamings: tuple[tuple[str, str], ...]
    """Patterns of names and what they become, applied in order."""
    fused: str
    """Pattern of the fused query, key and value."""
    tokenizer: Callable[[Path], PreTrainedTokenizerFast]

    def register(self) -> Format:
        """Tell transformers of the conversion, for this class alone."""
        register_checkpoint_conversion_mapping(
            self.model_class.__name__, [*self._renamings(), self._converter()], overwrite=True
        )
        return self

    def _renamings(self) -> list[WeightRenaming]:
        return [WeightRenaming(source, target) for source, target in self.renamings]

    def _converter(self) -> WeightConverter:
        return WeightConverter(self.fused, list(QUERY_KEY_VALUE), operations=[SplitQueryKeyValue()])

    def convert(self, name: str, tensor: Tensor, config: PreTrainedConfig) -> Iterator[tuple[str, Tensor]]:
        """A published tensor → the native ones, by the same rules as on loading."""
        if name in self.optional:
            return
        for renaming in self._renamings():
            name, _ = renaming.rename_source_key(name)
        converter = self._converter()
        name, fused = converter.rename_source_key(name)
        if fused is None:
            yield name, tensor
            return
        parts = converter.operations[0].convert({fused: tensor}, [fused], QUERY_KEY_VALUE, config=config)
        for target, part in parts.items():
            yield name.replace(QUERY_KEY_VALUE[0], target), part

    def checked_config(self, folder: Path, raw: dict[str, Any]) -> PreTrainedConfig:
        """The native config of a checkpoint whose tensors are exactly those of the published format.

        Raises:
            MsekitError: Another layout than the published one; a weight file or a tensor that is missing, unexpected
                or misshapen, by name.
        """
        try:
            config, wanted = self.native_config(raw), self.tensors(raw)
        except MsekitError as error:
            raise MsekitError(error.what, where=folder, fix="Use the published weights of this model.") from error
        except KeyError as error:
            raise MsekitError(f"config.json: {reason(error)}, which this format needs", where=folder) from error
        except (TypeError, ValueError, ArithmeticError, StrictDataclassError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise MsekitError(f"config.json has an impossible value: {first}", where=folder) from error
        refuse_quantised(raw, folder)
        shapes = tensor_shapes(folder)
        config.tie_word_embeddings = bool(raw.get("tie_word_embeddings")) and self.head not in shapes
        if config.tie_word_embeddings:
            del wanted[self.head]
        lacking, unknown = wanted.keys() - shapes.keys(), shapes.keys() - wanted.keys() - {*self.optional}
        for what, names in (("lacks", lacking), ("has unexpected", unknown)):
            if names:
                raise MsekitError(f"the checkpoint {what} tensors: {len(names)}, first {min(names)}", where=folder)
        for name, shape in wanted.items():
            if shapes[name] != shape:
                raise MsekitError(f"tensor {name} has shape {shapes[name]}; config.json asks for {shape}", where=folder)
        return config


def refuse_layout(raw: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a config whose fields say another layout than the published one.

    Args:
        raw: config.json.
        wanted: Fields and the values that they must have where they are given.

    Raises:
        MsekitError: Naming the field and its value.
    """
    for key, value in wanted.items():
        stated = raw.get(key, value)
        if stated != value:
            raise MsekitError(
                f"config.json has {key} {stated!r}; only the published layout, with {value!r}, can be converted"
            )

"""Load a frozen backbone: a catalogue name, a local folder or a hub id of any causal LM that transformers knows.

No code from a checkpoint's repository ever runs, and a checkpoint whose tensors do not match its architecture is
refused.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from msekit.backbones.catalogue import check_architecture
from msekit.backbones.compiled import CompiledPass
from msekit.backbones.fingerprint import fingerprint_checkpoint, fingerprint_model
from msekit.backbones.formats import format_of
from msekit.backbones.frozen_layers import FrozenLayers
from msekit.backbones.integer import round_activations
from msekit.backbones.kinds import check_kind
from msekit.backbones.last_layer import LastLayer, decoder_layers
from msekit.backbones.leaner import make_leaner
from msekit.backbones.locate import checkpoint_folder
from msekit.backbones.precision import DTYPES, default_device, default_dtype
from msekit.backbones.prefix import read_prefix
from msekit.backbones.quantise import check_quantised, quantization_config, settle
from msekit.backbones.shards import read_config, tensors_of, weight_files
from msekit.errors import MsekitError
from msekit.model.prompt import Sequence


@dataclass(eq=False)
class Backbone:
    """A frozen LLM and its tokenizer."""

    name: str
    """As the user wrote it: catalogue name, folder or hub id."""
    model: Any
    """The transformers model."""
    tokenizer: Any
    fingerprint: str
    """Of the source tensors, before any cast or quantisation."""
    integers: bool = False
    """Whether its weights, held in int8, are multiplied with activations in 8 bit (`integer.py`)."""
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Held by whoever computes with it, where several threads share it."""

    def __post_init__(self) -> None:
        self.model.requires_grad_(False).eval()
        settle(self.model)
        # a sliced hidden state is strided; multiplied as it is, CPU kernels copy the head's matrix once per sample
        self.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
        check_architecture(self.name, self.model.config)
        # asked once: where ZeRO-3 shards a weight, every later look at it gathers it from all processes
        self.device: torch.device = self.model.get_input_embeddings().weight.device
        self.takes = set(inspect.signature(self.model.forward).parameters)
        # transformers' name for keys and values read before: `cache` from 5.24 on
        self.cache_argument = "cache" if "cache" in self.takes else "past_key_values"
        make_leaner(self.model)
        self.rounding = round_activations(self.model) if self.integers else None
        self.last_layer = LastLayer(self.model)
        self.frozen_layers = FrozenLayers(self.model, decoder_layers(self.model))
        self.shortens: bool | None = None  # whether the last layer is: not known before the first pass
        self.compiled: CompiledPass | None = None
        self._plainly = False
        self._constants: dict[tuple[int, ...], Tensor] = {}
        self._prefixes: dict[tuple[tuple[int, ...], tuple[int, ...]], Any] = {}

    @property
    def text_dim(self) -> int:
        """Width of the embeddings."""
        return self.model.get_input_embeddings().embedding_dim

    @cached_property
    def first_weights(self) -> str:
        """Fingerprint of the parameters as they are held, when first asked for: at no later time another one."""
        return fingerprint_model(self.model)

    def embed(self, ids: Tensor) -> Tensor:
        """Tokens (…) → embeddings (…, d), in the backbone's dtype and without a gradient."""
        with torch.no_grad():
            return self.model.get_input_embeddings()(ids)

    def constant(self, ids: tuple[int, ...]) -> Tensor:
        """Tokens that every batch has → their embeddings (n, d), looked up once."""
        if ids not in self._constants:
            self._constants[ids] = self.embed(torch.tensor(ids, dtype=torch.long, device=self.device))
        return self._constants[ids]

    def prefix(self, opening: tuple[int, ...], following: tuple[int, ...]) -> Any:
        """Keys and values of tokens that every sequence begins with, read once; None where that does not work."""
        if (opening, following) not in self._prefixes:
            with self.plainly():
                self._prefixes[opening, following] = read_prefix(self, list(opening), list(following))
        return self._prefixes[opening, following]

    def compile(self) -> None:
        """From the next pass on, let it run as a compiled program."""
        self.compiled = CompiledPass(self._logits, self.device.type)

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Within, nothing is compiled, and w8a8 does not round activations.

        So a prefix is exact, and shorter ways are compared without steps between.
        """
        before, self._plainly = self._plainly, True
        try:
            with nullcontext() if self.rounding is None else self.rounding.switched_off():
                yield
        finally:
            self._plainly = before

    def encode(self, text: str) -> list[int]:
        """Text → tokens, without special tokens. Half of a surrogate pair (a cut emoji) is read as U+FFFD."""
        return self.tokenizer(_whole(text), add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, token: int) -> str:
        """A token's text by itself."""
        return self.tokenizer.decode([token])

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Many texts at once, each as `encode` does it."""
        whole = [_whole(text) for text in texts]
        return self.tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"] if whole else []

    @property
    def bos(self) -> list[int]:
        """The tokens that open a sequence: what the tokenizer itself adds in front, else its bos token if any."""
        bare, full = self.encode("a"), self.tokenizer("a")["input_ids"]
        added = full[: len(full) - len(bare)] if full[len(full) - len(bare) :] == bare else []
        if added:
            return added
        return [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]

    @property
    def end(self) -> int:
        """The token that ends an answer.

        Raises:
            MsekitError: The tokenizer has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise MsekitError("the tokenizer has no end-of-sequence token", where=self.name)
        return self.tokenizer.eos_token_id

    def logits(self, sequence: Sequence) -> Tensor:
        """Next-token logits of the last `sequence.answers` columns: (B, answers, V)."""
        untried = self.frozen_layers.works is None and self.compiled is None
        if self.shortens is None or untried:  # on the first samples that come
            self._try_shorter_ways(sequence.first(2))
        if self.compiled is not None and not self._plainly:
            compute: Callable[[Sequence], Tensor] = self.compiled
        elif self.frozen_layers.works:
            with self.frozen_layers.used(sequence.answers):
                return self._logits(sequence)
        else:
            compute = self._logits
        with self.last_layer.shortened(sequence.answers) if self.shortens else nullcontext():
            return compute(sequence)

    def _try_shorter_ways(self, few: Sequence) -> None:
        with self.plainly():
            if self.shortens is None:
                self.shortens = self.last_layer.works(lambda: self._logits(few), few.answers)
            if self.compiled is None:
                again = partial(replace, few)
                self.frozen_layers.try_on(lambda x: self._logits(again(embeddings=x)), few.embeddings, few.answers)

    def _logits(self, sequence: Sequence) -> Tensor:
        options: dict[str, Any] = {"logits_to_keep": sequence.answers} if "logits_to_keep" in self.takes else {}
        if sequence.prefix is not None:
            options[self.cache_argument] = sequence.prefix
        logits = self.model(
            inputs_embeds=sequence.embeddings,
            attention_mask=sequence.mask,
            position_ids=sequence.positions,
            use_cache=False,
            **options,
        ).logits
        return logits[:, -sequence.answers :]


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_backbone(
    name_or_path: str,
    quantization: str = "none",
    dtype: str | None = None,
    device: torch.device | str | None = None,
    checkpointing: bool = False,
    double_quantization: bool = False,
) -> Backbone:
    """Load and freeze an LLM.

    Args:
        name_or_path: Catalogue name, folder or hub id.
        quantization: `none`, `int8`, `nf4` or, on a CPU, `w8a8`; all but the first need bitsandbytes.
        dtype: `fp32`, `bf16` or `fp16`; None for bf16 where a GPU has it, fp32 otherwise.
        device: Where to put it; None for a GPU if there is one.
        checkpointing: Recompute each layer in the backward pass instead of keeping its activations.
        double_quantization: Quantise the scales of nf4 too.

    Returns:
        The frozen backbone.

    Raises:
        MsekitError: Unknown name, unusable checkpoint, or one that needs code of its repository.
    """
    device = torch.device(device) if device else default_device()
    dtype = dtype or default_dtype(device)
    check_kind(quantization, device.type)
    quantised = quantization_config(quantization, double_quantization, DTYPES[dtype])
    folder = checkpoint_folder(name_or_path)
    model = _load_model(folder, DTYPES[dtype], device, quantised)
    check_quantised(model, quantization)
    if checkpointing:
        _recompute_layers(model)
    integers = quantization == "w8a8"
    return Backbone(name_or_path, model, _load_tokenizer(folder), fingerprint_checkpoint(folder), integers)


def _load_model(folder: Path, dtype: torch.dtype, device: torch.device, quantised: Any) -> Any:
    from transformers.utils import logging as transformers_logging

    model_class, extra = architecture_of(folder)
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        model, info = model_class.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=quantised,
            # a quantised model cannot be moved: it is loaded to where it stays
            device_map={"": device} if quantised else None,
            # on a CPU the plain products are quicker forward and backward than sdpa, whose backward is slow there
            attn_implementation="eager" if device.type == "cpu" else "sdpa",
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name and shapes
            **extra,
        )
    except (ValueError, KeyError, TypeError, ImportError, OSError, RuntimeError, SafetensorError) as error:
        raise MsekitError(f"the checkpoint cannot be loaded: {_first_line(error)}", where=folder) from error
    wanted = {"inputs_embeds", "attention_mask", "position_ids"}
    if lacking := sorted(wanted - set(inspect.signature(model.forward).parameters)):
        raise MsekitError(
            f"{type(model).__name__} does not take {', '.join(lacking)}, which pseudo tokens and label scoring need",
            where=folder,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(kind):
            first = sorted(map(str, info[kind]))[0]
            raise MsekitError(f"the checkpoint has {len(info[kind])} {kind.replace('_', ' ')}: {first}", where=folder)
    return model if quantised else model.to(device)


def architecture_of(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The class that loads a checkpoint, and what it must be given besides the folder.

    Raises:
        MsekitError: A damaged or incomplete checkpoint, or one that only its own code could load.
    """
    import transformers

    raw = read_config(folder)
    if published := format_of(raw):
        return published.model_class, {"config": published.checked_config(folder, raw)}
    kind = raw.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        own_code = " and only its own code could load it, which msekit never runs" if "auto_map" in raw else ""
        raise MsekitError(
            f"transformers {transformers.__version__} does not know the checkpoint's model type '{kind}'{own_code}",
            where=folder,
            fix="Use a conversion of it to an architecture that transformers has.",
        )
    for file in weight_files(folder):
        for _ in tensors_of(file):  # a truncated file is noticed at its header
            break
    return transformers.AutoModelForCausalLM, {}


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        if published := format_of(read_config(folder)):
            return published.tokenizer(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except MsekitError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exception
        raise MsekitError(f"the tokenizer cannot be loaded: {_first_line(error)}", where=folder) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _recompute_layers(model: nn.Module) -> None:
    """Gradient checkpointing that, unlike transformers' own switch, works in eval mode (no dropout may wake up).

    The last layer is left alone: what it keeps is used as soon as the backward pass begins.
    """
    from torch.utils.checkpoint import checkpoint

    layers = decoder_layers(model)
    if not layers:
        raise MsekitError("this architecture has no layers that can be recomputed", fix="Use checkpointing off.")
    for layer in layers[:-1]:
        layer.recomputed = True  # type: ignore[assignment]
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)

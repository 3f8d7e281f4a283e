"""Backbone: a frozen LLM and its tokenizer; tokens, embeddings, logits."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from msekit.backbones.catalogue import check_architecture
from msekit.backbones.cpu.decoder_layers import FrozenLayers
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.passes.agree import decoder_layers
from msekit.backbones.passes.compiled import CompiledPass
from msekit.backbones.passes.last_layer import LastLayer
from msekit.backbones.passes.lean_mlp_norm import make_leaner
from msekit.backbones.passes.prefix import read_prefix
from msekit.backbones.quantise import settle
from msekit.backbones.sequence import Sequence
from msekit.errors import MsekitError


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
        """Within, nothing is compiled.

        So a prefix is exact, and shorter ways are compared without steps between.
        """
        before, self._plainly = self._plainly, True
        try:
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

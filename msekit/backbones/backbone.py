"""Backbone: a frozen LLM and its tokenizer; tokens, embeddings, logits."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from msekit.backbones.catalogue import check_architecture
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.passes.choose import Chosen, PassSettings, choose
from msekit.backbones.passes.findings import check_takes_embeddings
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
    settings: PassSettings = field(default_factory=PassSettings)
    """What is asked of its pass."""
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Held by whoever computes with it, where several threads share it."""

    def __post_init__(self) -> None:
        self.model.requires_grad_(False).eval()
        settle(self.model)
        # a sliced hidden state is strided; multiplied as it is, CPU kernels copy the head's matrix once per sample
        self.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
        check_architecture(self.name, self.model.config)
        check_takes_embeddings(self.model)
        # asked once: where ZeRO-3 shards a weight, every later look at it gathers it from all processes
        self.device: torch.device = self.model.get_input_embeddings().weight.device
        self._constants: dict[tuple[int, ...], Tensor] = {}
        self._prefixes: dict[tuple[int, ...], Any] = {}

    @cached_property
    def passes(self) -> Chosen:
        """Its pass and the ways that it takes, decided when first asked for.

        Raises:
            MsekitError: A way that was asked for by name cannot be used, or layers cannot be recomputed.
        """
        return choose(self.model, self.settings)

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

    def prefix(self, opening: tuple[int, ...]) -> Any:
        """Keys and values of tokens that every sequence begins with, read once; None where its pass takes none."""
        if not opening or "prefix" not in self.passes.uses:
            return None
        if opening not in self._prefixes:
            self._prefixes[opening] = read_prefix(self.model, self.constant(opening)[None])
        return self._prefixes[opening]

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
        return self.passes.run(sequence)


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

"""Backbone: a frozen LLM and its tokenizer; tokens, embeddings, logits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from msekit.backbones.catalogue import check_architecture
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.holding import MULTIPLE
from msekit.backbones.passes.choose import Chosen, PassSettings, choose
from msekit.backbones.passes.findings import check_takes_embeddings
from msekit.backbones.passes.prefix import read_prefix, state_of
from msekit.backbones.quantise import settle
from msekit.backbones.sequence import Sequence
from msekit.errors import MsekitError, brief


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
    configuration: str | None = None
    """Fingerprint of the checkpoint's configuration and tokenizer; None for a model that comes from no checkpoint."""

    def __post_init__(self) -> None:
        self.model.requires_grad_(False).eval()
        settle(self.model)
        # a sliced hidden state is strided; multiplied as it is, CPU kernels copy the head's matrix once per sample
        head = self.model.get_output_embeddings()
        head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
        self.exact_logits = ExactLogits(head)
        check_architecture(self.name, self.model.config)
        check_takes_embeddings(self.model)
        # asked once: where ZeRO-3 shards a weight, every later look at it gathers it from all processes
        self.device: torch.device = self.model.get_input_embeddings().weight.device
        self.on_gpu = self.device.type == "cuda"
        # transformers itself makes the masks of other attention, of positions by bias and of layers that keep a state
        self._takes_scores: bool = (
            self.model.config._attn_implementation == "sdpa"
            and not getattr(self.model.config, "alibi", False)
            and state_of(self.model) is None
        )
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

    def there(self, tensor: Tensor) -> Tensor:
        """A tensor of main memory where the LLM is, which a GPU copies while the program goes on."""
        from msekit.gpu import sent  # read by who computes, not by who loads

        return sent(tensor, self.device)

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
        return self._known(self._tokens(_whole(text), False))

    def decode(self, token: int) -> str:
        """A token's text by itself."""
        return self.tokenizer.decode([token])

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Many texts at once, each as `encode` does it."""
        whole = [_whole(text) for text in texts]
        return [self._known(ids) for ids in self._tokens(whole, False)] if whole else []

    def _tokens(self, text: str | list[str], special: bool) -> Any:
        try:
            return self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # the tokenizers library panics over a pattern that takes it too long
            raise MsekitError(f"the tokenizer cannot read a text: {brief(error)}", where=self.name) from error

    def _known(self, ids: list[int]) -> list[int]:
        """The tokens, all of which the LLM has embeddings for: a GPU would end the process over another one."""
        rows = self.model.get_input_embeddings().num_embeddings
        if ids and max(ids) >= rows:
            what = f"the tokenizer writes token {max(ids)}, and the LLM has embeddings for {rows}"
            raise MsekitError(what, where=self.name, fix="Give the tokenizer that belongs to the weights.")
        return ids

    @property
    def bos(self) -> list[int]:
        """The tokens that open a sequence: what the tokenizer itself adds in front, else its bos token if any."""
        bare, full = self.encode("a"), self._known(self._tokens("a", True))
        added = full[: len(full) - len(bare)] if full[len(full) - len(bare) :] == bare else []
        if added:
            return added
        return [] if self.tokenizer.bos_token_id is None else self._known([self.tokenizer.bos_token_id])

    @property
    def end(self) -> int:
        """The token that ends an answer.

        Raises:
            MsekitError: The tokenizer has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise MsekitError("the tokenizer has no end-of-sequence token", where=self.name)
        return self._known([self.tokenizer.eos_token_id])[0]

    def logits(self, sequence: Sequence, exact: Tensor | None = None) -> Tensor:
        """Next-token logits of the last `sequence.answers` columns: (B, answers, V).

        Args:
            sequence: What is read.
            exact: Tokens whose logits are wanted in fp32 from an LLM in 16 bit too, each once.
        """
        with self.exact_logits.of(exact):
            return self.passes.run(self._for_kernels(sequence) if self.on_gpu else sequence)

    def _for_kernels(self, sequence: Sequence) -> Sequence:
        """The same sequence as a GPU's kernels like it: few sizes, and one mask of scores, made once for all layers."""
        return self.with_own_mask(sequence).aligned(MULTIPLE)

    def with_own_mask(self, sequence: Sequence) -> Sequence:
        """The same sequence with a mask of scores, where the LLM reads one as it does a mask of columns."""
        # what reads one by one finds samples by masks of columns; masks of scores may be what the LLM reads otherwise
        if self._takes_scores and not {"padded-batch", "label-tree"} & set(self.passes.refused):
            return sequence.with_scores_mask()
        return sequence


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class ExactLogits:
    """Watches a frozen LLM's head, and within `of` gives logits of a few tokens in fp32 where it computes in 16 bit.

    bf16 numbers between 8 and 16 lie .0625 apart, and so do an LLM's logits: of the labels' tokens several have the
    very same one, and which is the largest is a matter of the batch. So the tokens that are scored are multiplied once
    more: the head's input as it is, by their rows of the head, in fp32. For a few tokens that costs nothing.

    Shapes: B batch, S columns, V vocabulary, T the few tokens, d width.

    Args:
        head: The layer that gives the logits.
    """

    def __init__(self, head: nn.Module) -> None:
        self._tokens: Tensor | None = None
        head.register_forward_hook(self._replace)

    @contextmanager
    def of(self, tokens_T: Tensor | None) -> Iterator[None]:
        """Within, logits of a 16-bit head are fp32, those of these tokens as if all of it were; None changes nothing.

        An architecture that scales or caps its logits does so afterwards, to all alike.
        """
        before, self._tokens = self._tokens, tokens_T
        try:
            yield
        finally:
            self._tokens = before

    def _replace(self, head: Any, inputs: tuple[Tensor, ...], logits_BSV: Tensor) -> Tensor | None:
        if self._tokens is None or logits_BSV.dtype not in (torch.bfloat16, torch.float16):
            return None
        rows_Td = head.weight[self._tokens].float()
        bias = getattr(head, "bias", None)
        bias_T = None if bias is None else bias[self._tokens].float()
        return Replaced.apply(logits_BSV, inputs[0], rows_Td, bias_T, self._tokens)


class Replaced(torch.autograd.Function):
    """16-bit logits → the same in fp32, with those of some tokens computed anew."""

    @staticmethod
    def forward(
        ctx: Any, logits_BSV: Tensor, hidden_BSd: Tensor, rows_Td: Tensor, bias_T: Tensor | None, tokens_T: Tensor
    ) -> Tensor:
        """Compute them.

        Args:
            ctx: Autograd's.
            logits_BSV: As the head gives them.
            hidden_BSd: The head's input.
            rows_Td: The head's weights of the tokens, fp32.
            bias_T: Its biases of them, or None.
            tokens_T: The tokens, each once.

        Returns:
            (B, S, V) float32.
        """
        exact_BST = hidden_BSd.float() @ rows_Td.T
        if bias_T is not None:
            exact_BST += bias_T
        ctx.save_for_backward(rows_Td, tokens_T)
        ctx.kinds = logits_BSV.dtype, hidden_BSd.dtype
        return logits_BSV.float().index_copy_(-1, tokens_T, exact_BST)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Gradients of the head's logits, none for the tokens', and of the head's input by the tokens alone."""
        rows_Td, tokens_T = ctx.saved_tensors
        (grad_BSV,) = grads
        of_logits, of_hidden = ctx.kinds
        own_BSd = grad_BSV[..., tokens_T] @ rows_Td
        return grad_BSV.to(of_logits).index_fill_(-1, tokens_T, 0), own_BSd.to(of_hidden), None, None, None

"""A sample's whole input as embeddings, for engines that read embeddings and give log-probabilities of tokens.

One query for each inner node of the label trie: the content, then the tokens that lead to the node. Most plug-ins of
emotions have one query a sample; intensities have some twenty, which share all but their last few rows, so that an
engine that caches prefixes reads them once.

Shapes: S rows of the input, d text width, E edges of the trie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msekit.data.batches.batch import Batch
from msekit.errors import MsekitError
from msekit.model.labels import Trie
from msekit.model.mse_model import MSEModel


@dataclass(frozen=True)
class Query:
    """What an engine is asked: the log-probability of each of these tokens behind these embeddings."""

    embeddings: Tensor
    """(S, d) on the CPU, in the LLM's precision."""
    tokens: tuple[int, ...]
    """Their log-probabilities are over the whole vocabulary, at temperature 1."""


@dataclass(frozen=True)
class EmbeddedPrompt:
    """A sample as an engine reads it."""

    queries: tuple[Query, ...]
    opinion: Tensor | None
    """(E,) the adapter's own opinion of every edge, which the LLM's is multiplied with; None where it has none."""
    notes: tuple[str, ...] = ()
    """What was done to the sample: text cut, values replaced, a modality left out."""
    id: str = "0"


@torch.no_grad()
def embedded(model: MSEModel, batch: Batch, id: str, notes: tuple[str, ...]) -> EmbeddedPrompt:
    """A batch of one sample → what an engine is asked of it."""
    content_1Sd, _, opinion_1K = model.content(batch)
    trie = model.labels.trie
    queries = []
    for row, node in enumerate(trie.inner.tolist()):
        rows_Sd = content_1Sd[0]
        if path := _path(trie, node):
            rows_Sd = torch.cat([rows_Sd, model.backbone.constant(path)])
        tokens = trie.token[trie.edge_row == row]
        queries.append(Query(rows_Sd.cpu().clone(), tuple(map(int, tokens))))
    opinion_E = None
    if model.product is not None and opinion_1K is not None:
        opinion_E = model.product.opinion(opinion_1K)[0].cpu()
    return EmbeddedPrompt(tuple(queries), opinion_E, notes, id)


@torch.no_grad()
def edges_of_queries(model: MSEModel, prompt: EmbeddedPrompt, logprobs: Sequence[Mapping[int, float]]) -> Tensor:
    """An engine's answers → log-probability of every edge of the label trie: (1, E) float32.

    Raises:
        MsekitError: Not an answer for every query, or one that lacks a token or is no log-probability.
    """
    if len(logprobs) != len(prompt.queries):
        raise MsekitError(f"{len(logprobs)} answers for {len(prompt.queries)} queries")
    trie = model.labels.trie
    llm_1E = torch.zeros(1, len(trie.token))
    for edge, (row, token) in enumerate(zip(trie.edge_row.tolist(), trie.token.tolist(), strict=True)):
        if token not in logprobs[row]:
            fix = "Ask the engine for every token of the query, or for more of the likeliest ones."
            raise MsekitError(f"query {row}: no log-probability of token {token}", fix=fix)
        value = float(logprobs[row][token])
        if not value <= 1e-3:  # nan too
            raise MsekitError(f"query {row}: {value} is no log-probability of token {token}")
        llm_1E[0, edge] = value
    if model.product is None or prompt.opinion is None:
        return llm_1E
    device = model.edge_row.device
    joint_1E: Tensor = model.product(llm_1E.to(device), prompt.opinion[None].to(device), model.llm_weight)
    return joint_1E.cpu()


def _path(trie: Trie, node: int) -> tuple[int, ...]:
    """Tokens from the root to a node."""
    return tuple(int(trie.token[above - 1]) for above in reversed(trie.ancestors(node)))

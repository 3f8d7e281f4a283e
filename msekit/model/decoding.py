"""An answer written token by token: transformers' `generate`, held to the label trie and to the adapter's opinion.

What `LabelSpace.predict(…, "greedy")` reads from one pass over the whole trie, this writes as a language model does. It
is slower and gives the same labels; it is for whoever wants the LLM's own decoding (sampling, beams) with a plug-in.

Shapes: B batch, V vocabulary, E edges of the trie.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from msekit.data.batches.batch import Batch
from msekit.model.labels import Trie, no_numbers
from msekit.model.mse_model import MSEModel


class OnTheTrie(LogitsProcessor):
    """Lets only labels be written, and raises their tokens' scores by the opinion.

    Args:
        trie: Of the labels.
        opinion_BE: Log-probabilities of the edges by the adapter's opinion; None for none.
        weight: What the LLM's scores are multiplied with.
        end: Written once a label is whole.
    """

    def __init__(self, trie: Trie, opinion_BE: Tensor | None, weight: float, end: int) -> None:
        self.trie, self.opinion_BE, self.weight, self.end = trie, opinion_BE, weight, end
        self.next = {(int(p), int(t)): e + 1 for e, (p, t) in enumerate(zip(trie.parent, trie.token, strict=True))}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Next-token scores (B, V) after the tokens written so far → the same, with all but the trie's at -inf."""
        held_BV = torch.full_like(scores, float("-inf"))
        rows = 1 if self.opinion_BE is None else len(input_ids) // len(self.opinion_BE)  # of a sample: its beams
        for row, written in enumerate(input_ids.tolist()):
            node = 0
            for token in written:
                node = self.next.get((node, token), -1)
            edges = (self.trie.parent == node).nonzero()[0]
            if not len(edges):
                held_BV[row, self.end] = 0
                continue
            tokens = torch.as_tensor(self.trie.token[edges], device=scores.device)
            held_BV[row, tokens] = self.weight * scores[row, tokens]
            if self.opinion_BE is not None:
                held_BV[row, tokens] += self.opinion_BE[row // rows, torch.as_tensor(edges, device=scores.device)]
        if held_BV.isnan().any():
            raise no_numbers()
        return held_BV


@torch.no_grad()
def write_answers(model: MSEModel, batch: Batch, **options: Any) -> list[str]:
    """Each sample's label, as `generate` writes it.

    Args:
        model: Adapter and backbone.
        batch: On the backbone's device.
        options: Of transformers' `generate`, one answer a sample; without any, greedy decoding.
    """
    content = model.content(batch)
    opinion_BE, weight = None, float(model.llm_weight)
    if model.product is not None and content.opinion is not None:
        opinion_BE = model.product.opinion(content.opinion)
    backbone, longest = model.backbone, max(len(tokens) for tokens in model.labels.tokens)
    with backbone.exact_logits.of(model.label_tokens):
        written_BA = backbone.model.generate(
            inputs_embeds=content.embeddings,
            attention_mask=content.mask,
            logits_processor=LogitsProcessorList([OnTheTrie(model.labels.trie, opinion_BE, weight, backbone.end)]),
            max_new_tokens=longest,
            pad_token_id=backbone.end,
            **{"do_sample": False} | options,
        )
    texts = {tuple(tokens): name for tokens, name in zip(model.labels.tokens, model.labels.names, strict=True)}
    lengths = {len(tokens) for tokens in texts}
    return [
        next(texts[key] for n in sorted(lengths, reverse=True) if (key := tuple(row[:n])) in texts)
        for row in written_BA.tolist()
    ]

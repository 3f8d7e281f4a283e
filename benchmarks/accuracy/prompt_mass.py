"""How natural an answer is after a prompt: the probability that all labels together hold before any training.

    python -m benchmarks.accuracy.prompt_mass ../shared/data/mosi_utt/mosi_utt.yaml "Sentiment from -3.0 to +3.0: " …

SmolLM2-135M, the first 60 validation texts, no pseudo tokens. Every tenfold step saves training about 2.3 nats.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from msekit.backbones.load import load_backbone
from msekit.data.catalogue import resolve_dataset
from msekit.data.readers.published import PublishedSet
from msekit.model.answers import Answers
from msekit.model.labels import LabelSpace
from msekit.model.prompt import PromptLayout


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("prompts", nargs="*")
    options = parser.parse_args()
    backbone = load_backbone("smollm2-135m", device="cpu")
    spec = resolve_dataset(options.dataset)
    labels = LabelSpace(spec, backbone.encode, backbone.end)
    texts = [row.text for row, _ in zip(PublishedSet(spec).rows("valid"), range(60), strict=False)]
    rows, tokens = torch.from_numpy(labels.trie.edge_row), torch.from_numpy(labels.trie.token)
    nodes = Answers.only(labels).nodes
    family = torch.from_numpy(nodes.family)
    print("| prompt | tokens | probability of all labels |\n|---|---|---|")
    for prompt in [spec.task_prompt, *options.prompts]:
        layout = PromptLayout(backbone.encode, backbone.bos, prompt)
        mass = []
        for text in texts:
            ids = torch.tensor([backbone.encode(text)])
            embedded = backbone.embed(ids)
            content = layout.content(backbone.constant, embedded[:, :0], embedded, torch.tensor([ids.shape[1]]))
            with torch.no_grad():
                sequence = layout.with_tree(*content, backbone.constant, nodes, family)
                logits = backbone.logits(sequence).log_softmax(dim=-1)
            mass.append(np.exp(labels.log_probabilities(logits[:, rows, tokens].numpy())).sum())
        print(f"| `{prompt}` | {len(layout.closing)} | {np.mean(mass):.1e} |", flush=True)


if __name__ == "__main__":
    main()

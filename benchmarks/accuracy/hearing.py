"""What an adapter hears, without the cost of an LLM: the settings behind recipe `kit`, compared in minutes on a CPU.

    python -m benchmarks.accuracy.hearing ../shared/data/ravdess/ravdess.yaml ../shared/data/mosi_utt/mosi_utt.yaml …

The frozen LLM is replaced by a fixed random network (three layers over the RMS-normalised pseudo tokens) that ends in
one logit per label. Text means are real: SmolLM2-135M's embeddings. Everything else is the kit's own code. For each
setting: the key figure (accuracy, WF1 or correlation of the mean) on validation, mean of the seeds after the
last epoch. It ranks settings; what the LLM makes of them is measured by real_runs.py.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from msekit.adapters.mse import MSEAdapter
from msekit.backbones.backbone import Backbone
from msekit.backbones.load import load_backbone
from msekit.data.batches.batch import Collator, Noise, global_batches
from msekit.data.batches.preprocess import Preprocessor
from msekit.data.cache.cache import Cache, prepare
from msekit.data.catalogue import DatasetSpec, resolve_dataset
from msekit.evaluation.metrics import metrics_of
from msekit.settings.config import OptimConfig
from msekit.training.build import encode_texts, text_center
from msekit.training.optim import learning_rate, optimizer_for

SHOWN = {"ravdess": "acc", "meld6": "wf1", "mosi_utt": "corr"}


@dataclass(frozen=True)
class Setting:
    """One way to feed and train the adapter."""

    conditioning: str = "unit"
    trim: float = 0.3
    max_frames: int | None = 16
    noise: float = 0.3
    standardise: bool = True
    eps: float = 1e-8
    expected: float = 0.0


SETTINGS = {
    "kit for emotions": Setting(),
    "kit for intensities": Setting(noise=1.0, expected=3.0),
    "centred, noise 1": Setting(conditioning="centred", noise=1.0),
    "without noise": Setting(noise=0.0),
    "unit, noise 1": Setting(noise=1.0),
    "centred, noise .3": Setting(conditioning="centred"),
    "without trimming": Setting(trim=0.0),
    "without averaging": Setting(max_frames=None),
    "without either": Setting(trim=0.0, max_frames=None),
    "paper conditioning": Setting(conditioning="paper"),
    "paper": Setting("paper", 0.0, None, 0.0, False, 1e-4),
    "centred, noise 1, expected 3": Setting(conditioning="centred", noise=1.0, expected=3.0),
}


class Readout(torch.nn.Module):
    """A fixed random network in the LLM's place: (B, P, d) → (B, labels)."""

    def __init__(self, tokens: int, width: int, labels: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = (tokens * width, 512, 512, labels)
        self.layers = [
            torch.randn(a, b, generator=generator) / a**0.5 * gain
            for a, b, gain in zip(sizes, sizes[1:], (1.0, 1.5, 1.5), strict=False)
        ]

    def forward(self, pseudo_BPd: torch.Tensor) -> torch.Tensor:
        """One logit per label."""
        first, second, last = self.layers
        hidden = torch.tanh(F.rms_norm(pseudo_BPd, pseudo_BPd.shape[-1:]).flatten(1) @ first)
        return torch.tanh(hidden @ second) @ last


def study(spec: DatasetSpec, cache: Cache, backbone: Backbone, setting: Setting, seed: int, epochs: int) -> float:
    """Train one adapter; its figure on validation."""
    ways = {
        name: Preprocessor.of(info, setting.standardise, setting.trim, setting.max_frames) if info.width else None
        for name, info in (("audio", cache.info.audio), ("vision", cache.info.vision))
    }
    low = 0.0 if spec.range is None else spec.range[0]
    step = 1.0 if spec.range is None else 0.1
    collators = {}
    for split in ("train", "valid"):
        table = cache.split(split)
        labels = np.rint((table.labels - low) / step).astype(np.int64)
        texts = encode_texts(table, backbone, 65)[0]
        collators[split] = Collator(table, texts, labels, ways["audio"], ways["vision"])
    count = len(spec.labels) if spec.labels else round((spec.range[1] - spec.range[0]) * 10) + 1  # type: ignore[index]
    torch.manual_seed(seed)
    widths = cache.info.audio.width, cache.info.vision.width
    adapter = MSEAdapter(backbone.text_dim, *widths, 64, 32, 4, conditioning=setting.conditioning)  # type: ignore[arg-type]
    if adapter.text_guide_mixer and adapter.text_guide_mixer.text_center is not None:
        adapter.text_guide_mixer.text_center.copy_(text_center(backbone, collators["train"]))
    readout = Readout(4, backbone.text_dim, count, seed)

    def logits(split: str, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = collators[split](indices)
        text = backbone.embed(batch.text_ids)
        sequences = batch.audio, batch.audio_lengths, batch.vision, batch.vision_lengths
        return readout(adapter(text, batch.text_mask, *sequences)), batch.label

    config = OptimConfig(eps=setting.eps, lr=5e-4 if setting.conditioning == "paper" and setting.eps > 1e-6 else 2e-3)
    optimizer = optimizer_for(adapter, config)
    values = torch.arange(count) * step + low
    total = -(-len(collators["train"].split) // config.batch_size) * epochs
    done = 0
    for epoch in range(epochs):
        noise = Noise(setting.noise, seed, epoch) if setting.noise else None
        collators["train"] = replace(collators["train"], noise=noise)
        for indices in global_batches(*collators["train"].lengths(), config.batch_size, seed, epoch):
            scores, truth = logits("train", indices)
            distance = (scores.softmax(dim=1) @ values - values[truth]).abs().mean() if setting.expected else 0.0
            (F.cross_entropy(scores, truth) + setting.expected * distance).backward()
            torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done, total, config.warmup, config.lr)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
    with torch.no_grad():
        scores = logits("valid", list(range(len(collators["valid"].split))))[0]
    predicted = scores.argmax(dim=1) if spec.range is None else scores.softmax(dim=1) @ values
    return metrics_of(spec)(collators["valid"].split.labels, predicted.numpy())[SHOWN.get(spec.name, "acc")] or 0.0


def main() -> None:
    """Print a Markdown table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS), default=list(SETTINGS), metavar="SETTING")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    backbone = load_backbone("smollm2-135m", device="cpu")
    for path in options.datasets:
        spec = resolve_dataset(str(path))
        cache = prepare(spec)
        print(
            f"\n| {spec.name}, {SHOWN.get(spec.name, 'acc')} | valid | seeds |\n|---|---|---|",
            flush=True,
        )
        for name in options.only:
            setting = SETTINGS[name]
            if setting.expected and spec.range is None:
                continue  # a loss for intensities
            figures = [study(spec, cache, backbone, setting, seed, options.epochs) for seed in range(options.seeds)]
            by_seed = ", ".join(f"{figure:.3f}" for figure in figures)
            print(f"| {name} | {np.mean(figures):.3f} | {by_seed} |", flush=True)


if __name__ == "__main__":
    main()

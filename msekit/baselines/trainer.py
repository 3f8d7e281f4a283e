"""The loop of the baselines that are networks: epochs to the best one on validation, resumable after each of them."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from msekit.backbones.precision import default_device
from msekit.baselines.catalogue import BASELINES
from msekit.baselines.rival_batch import Sizes
from msekit.baselines.rival_data import RivalData
from msekit.baselines.stages import Stage, stages_of
from msekit.baselines.text_linear import answer
from msekit.baselines.texts import Texts
from msekit.data.batches.batch import Noise
from msekit.errors import MsekitError, UnfinishedRunError
from msekit.evaluation.metrics import goodness, metrics_of
from msekit.process import flush_denormals, ready_for_cuda
from msekit.reporter import Reporter
from msekit.runs.files import STATE
from msekit.runs.progress import Progress
from msekit.runs.tensors import read_tensors, write_tensors
from msekit.version import __version__

PATIENCE = 8
"""Epochs without a better one on validation, after which training ends."""


def network_of(name: str) -> Any:
    """The class of a baseline that is a network, or the function that makes it."""
    place = BASELINES[name].network
    assert place is not None, f"{name} is no network"
    if not isinstance(place, str):
        return place
    file, _, kind = place.partition(":")
    return getattr(import_module(f"msekit.baselines.{file}"), kind)


@dataclass
class Trained:
    """What training gave."""

    scores: np.ndarray
    """Of the test split: class probabilities (N, C), or intensities (N,) within the range."""
    shuffled: np.ndarray
    """Likewise, every sample with the audio and vision of another."""
    progress: Progress
    parameters: int


class Trainer:
    """A baseline in training.

    Args:
        name: Of the baseline.
        data: The data set.
        seed: Decides weights, order, noise and dropout.
        epochs: Most epochs.
        folder: Where the state is kept after each epoch; None to keep none.
        kind: What the run is; a state of another is refused.
        reporter: Where progress goes.
    """

    def __init__(
        self,
        name: str,
        data: RivalData,
        seed: int,
        epochs: int,
        folder: Path | None,
        kind: dict[str, Any],
        reporter: Reporter,
    ) -> None:
        self.name, self.data, self.seed, self.epochs, self.reporter = name, data, seed, epochs, reporter
        self.entry, self.spec, self.folder = BASELINES[name], data.spec, folder
        self.kind = json.dumps(kind | {"msekit": __version__, "entry": asdict(self.entry)}, default=str)
        self.device = default_device()
        if self.device.type == "cuda":
            ready_for_cuda()
        torch.manual_seed(seed)
        self.network = make_network(name, data.sizes, data.texts).to(self.device)
        self.stages = stages_of(self.network)
        self.optimizers = [
            torch.optim.AdamW(
                [{"params": group.parameters, "lr": self.entry.rate * group.factor} for group in stage.groups],
                lr=self.entry.rate,
                weight_decay=self.entry.decay,
                fused=self.device.type == "cpu",
            )
            for stage in self.stages
        ]
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}

    def fit(self) -> Trained:
        """Train to the best validation epoch, and score the test split with it."""
        flush_denormals()
        self._resume()
        progress = self.progress
        while progress.epoch < self.epochs and progress.epoch - progress.best_epoch < PATIENCE:
            started = time.perf_counter()
            loss = self._epoch(progress.epoch)
            metrics, valid_loss = self._validate()
            value = goodness(self.spec.key_metric, metrics[self.spec.key_metric])
            progress.epoch += 1
            before = -math.inf if progress.best_value is None else progress.best_value
            if better := not self.best or value > before:
                progress.best_value = value if math.isfinite(value) else None  # a metric that is not defined
                progress.best_epoch = progress.epoch
                self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
            line = {"epoch": progress.epoch, "train_loss": loss, "valid_loss": valid_loss, "valid": metrics}
            progress.history.append(line | {"best": better})
            progress.seconds += time.perf_counter() - started
            self._save()
        self.network.load_state_dict(self.best)
        scores = self.scores("test")
        self.data.shuffle_test()
        trained = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        return Trained(scores, self.scores("test"), progress, trained)

    def _epoch(self, epoch: int) -> float:
        """One pass of every stage; the mean loss of the last one."""
        self.network.train()
        if (begin := getattr(self.network, "begin", None)) is not None:
            begin(epoch + 1)
        noise = Noise(self.data.noise, self.seed, epoch)
        batches = self.data.order(self.seed, epoch)
        mean = 0.0
        for number, (stage, optimizer) in enumerate(zip(self.stages, self.optimizers, strict=True)):
            last = number == len(self.stages) - 1
            some = batches[: max(1, round(stage.share * len(batches)))]
            mean = self._pass(epoch, stage, optimizer, some, noise, last)
        return mean

    def _pass(
        self,
        epoch: int,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        batches: list[list[int]],
        noise: Noise,
        last: bool,
    ) -> float:
        total, count = 0.0, sum(map(len, batches))
        after = getattr(self.network, "after", None) if last else None
        trained = [parameter for group in stage.groups for parameter in group.parameters]
        with self.reporter.bar(f"seed {self.seed}, {self.name}, epoch {epoch + 1} of {self.epochs}", count) as advance:
            for positions in batches:
                batch = self.data.batch("train", positions, noise).to(self.device)
                loss = stage.loss(batch)
                if not torch.isfinite(loss):
                    raise UnfinishedRunError(f"{self.name}: the loss is not finite in epoch {epoch + 1}")
                self.network.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(trained, self.entry.clip)
                optimizer.step()
                if after is not None:
                    with torch.no_grad():
                        after(batch)
                total += loss.item() * len(positions)
                advance(len(positions))
        return total / count

    def _validate(self) -> tuple[dict[str, Any], float]:
        scores, truth = self.scores("valid"), self.data.collators["valid"].split.labels
        if self.spec.labels:
            loss = float(-np.log(scores[np.arange(len(truth)), truth.astype(np.int64)].clip(1e-12)).mean())
        else:
            loss = float(np.abs(scores - truth).mean())
        return metrics_of(self.spec)(truth, answer(scores)), loss

    @torch.no_grad()
    def scores(self, split: str) -> np.ndarray:
        """Class probabilities (N, C), or intensities (N,) clipped to the range; in the split's order."""
        self.network.eval()
        batches = self.data.evaluation(split)
        outputs = torch.cat([self.network(self.data.batch(split, places).to(self.device)).cpu() for places in batches])
        ordered = torch.empty_like(outputs)
        ordered[torch.tensor([place for places in batches for place in places])] = outputs
        if self.spec.range is None:
            return ordered.softmax(dim=1).double().numpy()
        return ordered[:, 0].double().numpy().clip(*self.spec.range)

    def _save(self) -> None:
        if self.folder is None:
            return
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for number, optimizer in enumerate(self.optimizers):
            for place, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optim.{number}.{place}.{name}": tensor for name, tensor in moments.items()}
        tensors["random.torch"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        write_tensors(self.folder / STATE, tensors, {"progress": json.dumps(asdict(self.progress)), "kind": self.kind})

    def _resume(self) -> None:
        """Go on from the state in the folder, if there is one.

        Raises:
            MsekitError: It is damaged, or of another run.
        """
        if self.folder is None or not (self.folder / STATE).is_file():
            return
        tensors, header = read_tensors(self.folder / STATE)
        if header.get("kind") != self.kind:
            raise MsekitError(
                "the folder holds the unfinished run of another baseline, or of other settings",
                where=self.folder,
                fix="Give those that it was begun with, or choose another --output.",
            )
        self.network.load_state_dict(_under("network.", tensors))
        self.best = _under("best.", tensors)
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _under(f"optim.{number}.", tensors).items():
                place, _, moment = name.partition(".")
                state.setdefault(int(place), {})[moment] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        torch.set_rng_state(tensors["random.torch"])
        if "random.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"])
        self.progress = TypeAdapter(Progress).validate_json(header["progress"])
        self.reporter.note(f"{self.name}: goes on behind epoch {self.progress.epoch}")


def make_network(name: str, sizes: Sizes, texts: Texts | None = None) -> nn.Module:
    """A baseline's network with fresh weights, by the global random state; texts hold the LLM of one that needs it."""
    kind = network_of(name)
    network: nn.Module = kind(sizes) if texts is None or texts.of_llm is None else kind(sizes, texts.of_llm)
    return network


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

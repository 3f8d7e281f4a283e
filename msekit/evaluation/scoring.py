"""Scores: a model and a split → a score for every label of every sample, and the loss, predictions and metrics of them.

Shapes: N samples of a split, B of a batch, R models that are scored at once, P parts of a model's scores (`Edges`), E
edges of the label trie, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msekit.data.batches.ahead import ahead
from msekit.data.batches.batch import Batch, Collator, evaluation_batches
from msekit.data.catalogue import DatasetSpec
from msekit.distributed.accelerator import gather_rows, on_main
from msekit.evaluation.bootstrap import bootstrap
from msekit.evaluation.metrics import collapsed_to, labelled, metrics_of
from msekit.gpu import one_late
from msekit.model.answers import Answers, Asked, estimate_for
from msekit.model.labels import LabelSpace
from msekit.model.mse_model import MSEModel, edges_of
from msekit.reporter import Reporter
from msekit.settings.config import EvaluationConfig

SHUFFLE_SEED = 0
"""Seed of the permutation that gives every sample another one's audio and vision."""


@dataclass
class Scores:
    """Label scores of a split, in its order."""

    edges: np.ndarray
    """(N, E) float32 log-probabilities of the trie's edges."""
    truths: np.ndarray
    """(N,) class numbers or intensities; NaN for a sample without a label. Of several targets (N, Q), a number for each
    question."""
    answers: Answers | LabelSpace
    llm: np.ndarray | None = None
    """(N, E) those of the LLM alone; None where the adapter has no opinion beside it."""
    opinion: np.ndarray | None = None
    """(N, E) those of the adapter's opinion alone."""

    def __post_init__(self) -> None:
        self.answers = Answers.only(self.answers)

    @property
    def labels(self) -> LabelSpace:
        """The label space of the one target.

        Raises:
            MsekitError: There are several.
        """
        return Answers.only(self.answers).space

    def each(self) -> Iterator[tuple[Asked, Scores]]:
        """The scores of every question by itself."""
        asked = Answers.only(self.answers).asked
        columns = self.truths.T if self.truths.ndim == 2 else [self.truths]
        for one, truths_N in zip(asked, columns, strict=True):
            yield one, Scores(self.edges[:, one.edges], truths_N, one.space)

    def alone(self) -> dict[str, Scores]:
        """The LLM without the opinion, and the opinion without the LLM; empty where there is none."""
        shares = {"llm": self.llm, "opinion": self.opinion}
        return {name: Scores(edges, self.truths, self.answers) for name, edges in shares.items() if edges is not None}

    def loss(self) -> float:
        """Mean negative log-probability of the true labels, in nats: the training loss on this split.

        Of several targets the sum of every question's, on the samples that answer it, times its weight.
        """
        return float(sum(one.weight * scores.own_loss() for one, scores in self.each() if scores.known))

    @property
    def known(self) -> bool:
        """Whether any sample has a label."""
        return not bool(np.isnan(self.truths).all())

    def own_loss(self) -> float:
        """The loss of the one target."""
        truths_N, scores_NK = labelled(self.truths, self.labels.log_probabilities(self.edges))
        return float(-scores_NK[np.arange(len(scores_NK)), self.labels.indices(truths_N)].mean())

    def predictions(self, estimate: str) -> np.ndarray:
        """(N,) point estimates; of several targets (N, Q)."""
        return Answers.only(self.answers).predict(self.edges, estimate)  # type: ignore[arg-type]

    def metrics(self, spec: DatasetSpec, estimate: str) -> dict[str, Any]:
        """The data set's metrics."""
        return metrics_of(spec)(self.truths, self.predictions(estimate))

    def confidence(self, spec: DatasetSpec, config: EvaluationConfig) -> dict[str, list[float] | None]:
        """95 % bootstrap intervals of the metrics; empty where they are switched off."""
        if not config.bootstrap:
            return {}
        predictions = self.predictions(config.estimate)
        return bootstrap(self.truths, predictions, metrics_of(spec), repeats=config.bootstrap)

    def collapsed(self, estimate: str) -> str | None:
        """The name of the label that every prediction equals (or is nearest to); None if they differ.

        Of several targets those that have collapsed, each with its label; one with labels has where all of them have.
        """
        found: dict[str, list[str | None]] = {}
        for one, scores in self.each():
            own = estimate_for(one.space.task, estimate)  # type: ignore[arg-type]
            position = collapsed_to(one.space.indices(scores.predictions(own)).tolist())
            found.setdefault(one.target, []).append(None if position is None else one.space.names[position])
        whole = {target: names for target, names in found.items() if None not in names}
        said = [f"{target} {'/'.join(map(str, names))}" if target else str(names[0]) for target, names in whole.items()]
        return ", ".join(said) or None


def score_split(
    model: MSEModel,
    collator: Collator,
    batch_size: int,
    accelerator: Any,
    reporter: Reporter,
    title: str,
    between: Callable[[], None] | None = None,
) -> Scores:
    """Score every sample of a split once, whatever the number of processes.

    Args:
        model: Adapter and backbone.
        collator: The split's collator.
        batch_size: Samples that a process scores at a time; every process takes the main process's number.
        accelerator: This process's part in the run.
        reporter: Where progress goes.
        title: Title of the progress bar.
        between: Called before every batch, equally often in every process.
    """
    return score_together([model], collator, batch_size, accelerator, reporter, title, between)[0]


def score_together(
    models: list[MSEModel],
    collator: Collator,
    batch_size: int,
    accelerator: Any,
    reporter: Reporter,
    title: str,
    between: Callable[[], None] | None = None,
) -> list[Scores]:
    """Score every sample of a split once by each of several models, which share a backbone.

    Args:
        models: Adapters on the same backbone.
        collator: The split's collator.
        batch_size: See `score_split`.
        accelerator: See `score_split`.
        reporter: See `score_split`.
        title: See `score_split`.
        between: See `score_split`.
    """
    for model in models:
        model.adapter.eval()
    device = models[0].backbone.device
    rank, world = accelerator.process_index, accelerator.num_processes
    size = on_main(accelerator, lambda: batch_size)  # on a machine of other memory the plan may give another number
    batches = evaluation_batches(*collator.lengths(), size, rank, world)
    rounds = len(evaluation_batches(*collator.lengths(), size, 0, world))  # the first share is the largest
    # a process with fewer batches scores sample 0 once more, because it must take part in the collective operations;
    # its rows are not stored
    made = ahead(lambda indices: collator(indices).pinned_for(device), batches + [[0]] * (rounds - len(batches)))
    rows: dict[int, np.ndarray] = {}
    with closing(made), reporter.bar(title, total=sum(map(len, batches))) as advance:
        for number, edges_BRPE in enumerate(one_late(_edges(models, made, between))):
            if number < len(batches):
                rows.update(zip(batches[number], edges_BRPE.numpy(), strict=True))
                advance(len(batches[number]))
    rows = gather_rows(accelerator, rows)
    edges_NRPE = np.stack([rows[position] for position in range(len(collator.split))])
    return [
        Scores(
            edges_NRPE[:, number, 0], collator.split.labels, model.answers, *edges_NRPE[:, number, 1:].swapaxes(0, 1)
        )
        for number, model in enumerate(models)
    ]


def _edges(models: list[MSEModel], made: Iterable[Batch], between: Callable[[], None] | None) -> Iterator[Tensor]:
    """Edges of every batch by every model, (B, R, P, E), on the models' device."""
    for batch in made:
        if between is not None:
            between()
        every = edges_of(models, batch.to(models[0].backbone.device))
        parts = [torch.stack([part for part in edges if part is not None]) for edges in every]
        yield torch.stack(parts).permute(2, 0, 1, 3)

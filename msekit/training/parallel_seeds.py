"""`--parallel-seeds`: several runs in one process on one frozen backbone, their batches joined into one pass.

Each run has its own adapter, optimiser, order of samples, run folder and patience, and its trajectory is that of its
run alone: samples of a joined batch never see one another. Where launching kernels bounds a step, five runs cost little
more than one; everywhere they share one backbone's memory, loading and preparation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from msekit.backbones.precision import default_device
from msekit.data.batches.ahead import ahead
from msekit.data.batches.batch import Batch
from msekit.distributed.accelerator import StopSignals, accelerator_for
from msekit.errors import MsekitError, StoppedError, UnfinishedRunError
from msekit.evaluation.scoring import SHUFFLE_SEED, Scores, score_together
from msekit.model.assemble import with_adapter
from msekit.model.mse_model import losses_of
from msekit.process import deterministic, flush_denormals, seed_everything
from msekit.reporter import Reporter
from msekit.runs.config import write_config
from msekit.runs.files import STATE
from msekit.runs.finished import finished_report
from msekit.runs.go_on import is_reused
from msekit.runs.identity import settings_of
from msekit.runs.lock import held_for_training
from msekit.settings.config import RunConfig
from msekit.training.build import Parts, build, fresh_adapter
from msekit.training.callbacks import Callback
from msekit.training.checkpoint import clocks
from msekit.training.decisions import as_decided
from msekit.training.engine import PlainEngine
from msekit.training.fit import fitted
from msekit.training.joint_step import JointStep
from msekit.training.loop import Run
from msekit.training.loss_scale import scaled
from msekit.training.opinion import train_opinion
from msekit.training.signals import callback_failed, heed_signals
from msekit.training.step import read_steps
from msekit.training.tracker_ways import refuse_together

T = TypeVar("T")


def train_together(
    configs: list[RunConfig],
    resume: bool = False,
    reporter: Reporter | None = None,
    callbacks: Sequence[Callback] = (),
) -> Iterator[dict[str, Any]]:
    """Train and test several runs at once; like `train` for each of them.

    Args:
        configs: Resolved runs that differ in seed, output and optimiser settings alone.
        resume: Continue those that their folders hold; finished ones are reused.
        reporter: Where progress goes; None for the terminal.
        callbacks: Told what happens in every run.

    Yields:
        The content of every run's `report.json`, in the order of the runs.

    Raises:
        MsekitError: Bad input or several processes; raised before anything is trained.
        UnfinishedRunError: A run's loss became non-finite; raised when the others have been tested.
    """
    reporter = reporter or Reporter()
    configs = [fitted(config, resume, len(configs)) for config in configs]
    check_alike(configs)
    finished = {c.output: finished_report(c, reporter) for c in configs if is_reused(c, resume)}
    rest = [config for config in configs if config.output not in finished]
    together = None
    if rest:
        in_one_process()
        refuse_together(rest[0].tracking.trackers, len(rest))  # before minutes of an opinion's training
        with ExitStack() as held:
            for config in rest:
                held.enter_context(held_for_training(config.output, resume))
            signals = held.enter_context(StopSignals())
            held.enter_context(deterministic(any(config.optim.deterministic for config in rest)))
            together = start(rest, resume, reporter, signals)
            for run in together.runs:
                held.enter_context(run.watch.opened(callbacks, len(rest)))
            together.fit()
            finished |= together.test()
        if signals.failure is not None:
            raise callback_failed(signals, "; the runs are finished", rest[0].output.parent)
    yield from (finished[config.output] for config in configs if config.output in finished)
    if together and together.failures:
        raise together.failures[0]


def check_alike(configs: list[RunConfig]) -> None:
    """Runs can share a pass where backbone, data and layout agree.

    Raises:
        MsekitError: They do not, or the batches are computed in different numbers of parts.
    """
    shared = [
        settings_of(c) | {"seed": 0, "optim": c.optim.accumulation, "dataset": c.dataset, "dtype": c.model.dtype}
        for c in configs
    ]
    if any(settings != shared[0] for settings in shared):
        raise MsekitError("runs that train together may differ in seed and optimiser settings alone")
    if not configs[0].reads_features:
        raise MsekitError(
            "--ablate no-audio-vision tests every seed on noise of its own", fix="Leave --parallel-seeds out."
        )


def in_one_process() -> Any:
    """The accelerator of a process that is alone.

    Raises:
        MsekitError: Several were launched.
    """
    accelerator = accelerator_for(default_device())
    if accelerator.num_processes > 1:
        raise MsekitError("--parallel-seeds works in one process", fix="Leave it out, or do not launch several.")
    return accelerator


def start(configs: list[RunConfig], resume: bool, reporter: Reporter, signals: StopSignals | None = None) -> Together:
    """Build what the runs share once, restore those that were stopped. The caller holds their folders."""
    accelerator = in_one_process()
    heed = partial(heed_signals, accelerator, signals or StopSignals())
    parts = build(configs[0], reporter, seeds=len(configs), heed=heed)
    flush_denormals()
    seed_everything(configs[0].seed)
    runs = []
    for config in configs:
        mine, stopped = parts_for(config, parts), resume and (config.output / STATE).is_file()
        alone = 0.0
        if not stopped:
            alone = train_opinion(config, mine, reporter, heed)
        run = Run(config, mine, accelerator, reporter, signals)
        run.progress.opinion_seconds = alone
        if stopped:
            run.restore()
        write_config(as_decided(config, parts))
        runs.append(run)
    return Together(runs, accelerator, reporter)


def parts_for(config: RunConfig, parts: Parts) -> Parts:
    """A run's own adapter, over the backbone and data of all."""
    first, backbone = parts.model, parts.backbone
    adapter = fresh_adapter(config, backbone, parts.spec, parts.widths).to(backbone.device)
    for mine, theirs in zip(adapter.buffers(), first.adapter.buffers(), strict=True):
        mine.copy_(theirs)  # what the train split decided
    return replace(parts, model=with_adapter(first, adapter))


def collate(runs: list[Run], batches: tuple[list[int], ...]) -> list[list[Batch]]:
    """Every run's batch in its parts, for one step of all."""
    return [run.collate(batch) for run, batch in zip(runs, batches, strict=True)]


def engines_of(runs: list[Run]) -> list[PlainEngine]:
    """What they train with: in one process there is no other."""
    engines = [run.engine for run in runs]
    assert all(isinstance(engine, PlainEngine) for engine in engines)
    return engines  # type: ignore[return-value]


class Together:
    """Runs in progress, one step of each at a time.

    Args:
        runs: As `start` made them.
        accelerator: Of this one process.
        reporter: Where progress goes.
    """

    def __init__(self, runs: list[Run], accelerator: Any, reporter: Reporter) -> None:
        self.runs, self.accelerator, self.reporter = runs, accelerator, reporter
        self.joint_step = JointStep(engines_of(runs))
        self.failures: list[UnfinishedRunError] = []

    def fit(self) -> None:
        """Steps until every run has ended: by its schedule, its patience, or a loss that is not finite."""
        while active := [run for run in self.runs if not run.progress.finished]:
            batches = [run.begin_epoch() for run in active]
            rest = [mine[run.progress.batch :] for run, mine in zip(active, batches, strict=True)]
            left = list(zip(*rest, strict=False))  # as long as every run has batches left
            seeds = ", ".join(str(run.config.seed) for run in active)
            title = active[0].pace.epoch(active[0].progress).replace(f"seed {active[0].config.seed}", f"seeds {seeds}")
            made = ahead(partial(collate, active), left)
            with closing(made), self.reporter.bar(title, len(left)) as advance:
                for joint, parts in zip(left, made, strict=True):
                    self.step(active, parts, [len(batch) for batch in joint])
                    if not set(active) <= set(self.runs):
                        break  # go on with the others
                    losses = ", ".join(f"{run.progress.loss_sum / run.progress.samples:.3f}" for run in active)
                    advance(1, f"loss {losses}")
            lengths = {run: len(mine) for run, mine in zip(active, batches, strict=True)}
            ended = [run for run in self.runs if run.progress.batch == lengths.get(run)]
            try:
                with ExitStack() as stack:
                    for run in ended:
                        stack.enter_context(run.averaged())
                    for run, scores in zip(ended, self.score(ended, "valid", "validation"), strict=True):
                        self.attempt(run, partial(run.judge, scores))
            except StoppedError:  # by now the adapters are the training's own again
                self.save()
                raise
            for run in ended:
                if run in self.runs:
                    run.end_epoch()

    def step(self, runs: list[Run], parts: list[list[Batch]], samples: list[int]) -> None:
        """One optimiser step of every run, each on its own global batch.

        Args:
            runs: Those that take part.
            parts: What `collate` made of every run's batch.
            samples: Sizes of the batches.
        """
        started = clocks()
        device = runs[0].parts.backbone.device
        totals = torch.zeros(len(runs), device=device)
        for joined in zip(*parts, strict=True):
            batches = [part.to(device) for part in joined]
            losses = losses_of([run.parts.model for run in runs], batches)
            losses = [loss * (1 / size) for loss, size in zip(losses, samples, strict=True)]  # as each does alone
            parts_of = [scaled(loss, run.engine.loss_scale) for run, loss in zip(runs, losses, strict=True)]
            torch.stack(parts_of).sum().backward()  # a run's loss has gradients for its own adapter alone
            totals += torch.stack(losses).detach()
        rates = [run.rate for run in runs]
        norms = self.joint_step.launch(engines_of(runs), rates)
        figures = zip(runs, totals, norms, rates, strict=True)
        steps = read_steps(self.accelerator, [run.launched(loss, norm, rate) for run, loss, norm, rate in figures])
        self.joint_step.settle(engines_of(runs), [step.norm for step in steps])
        outcomes = [self.attempt(run, partial(run.checked, step)) for run, step in zip(runs, steps, strict=True)]
        seconds = (clocks() - started) / len(runs)  # every run is charged its share of the time
        for run, size, outcome in zip(runs, samples, outcomes, strict=True):
            if outcome is not None:
                run.count(outcome, size, seconds)
                if outcome.save_now:
                    run.save()
        if self.runs and self.runs[0].signals.received:
            self.save()
            self.runs[0].stop_for_signal()

    def save(self) -> None:
        """Every run's state."""
        for run in self.runs:
            run.save()

    def attempt(self, run: Run, action: Callable[[], T]) -> T | None:
        """Do something of one run; where its numbers are not finite, the others go on without it (None then)."""
        try:
            return action()
        except UnfinishedRunError as error:
            self.reporter.warn(f"seed {run.config.seed}: {error}")
            self.failures.append(error)
            run.watch.ended(None, error)
            self.runs.remove(run)
            return None

    def score(self, runs: list[Run], split: str, title: str, shuffled: bool = False) -> list[Scores]:
        """A split scored by every run's adapter as it stands; `shuffled`: with the frames of other samples."""
        if not runs:
            return []
        parts = runs[0].parts
        size = max(parts.evaluation_batch // len(runs), 1)  # the runs share a pass
        models = [run.parts.model for run in runs]
        title = f"seeds {', '.join(str(run.config.seed) for run in runs)}, {title}"
        collator, between = parts.collators[split], runs[0].heed_signals
        if shuffled:
            collator = collator.shuffled(SHUFFLE_SEED)
        return score_together(models, collator, size, self.accelerator, self.reporter, title, between)

    def test(self) -> dict[Path, dict[str, Any]]:
        """Test every run's best adapter and write its report; by run folder."""
        if not self.runs:
            return {}
        for run in self.runs:
            run.load_best()
        scores = self.score(self.runs, "test", "test")
        shuffled: list[Scores | None] = [None] * len(scores)
        if self.runs[0].tests_shuffled:
            shuffled = [*self.score(self.runs, "test", "test, audio and vision shuffled", shuffled=True)]
        weights = self.runs[0].check_backbone()
        tested = zip(self.runs, scores, shuffled, strict=True)
        return {run.config.output: run.report(mine, other, weights) for run, mine, other in tested}

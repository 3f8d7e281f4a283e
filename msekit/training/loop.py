"""train(config): build, prepare, loop, step, validate, stop, test. The whole story.

One loop for one process or many. A run's trajectory depends on its config alone: the order of the samples is a
function of seed and epoch, so a run that was killed and resumed ends with the same adapter as an undisturbed one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.precision import default_device
from msekit.data.batches.ahead import ahead
from msekit.data.batches.batch import Batch, global_batches, micro_batches
from msekit.data.catalogue import SPLITS
from msekit.distributed.accelerator import StopSignals, accelerator_for, naming_lost_processes, on_main
from msekit.distributed.zero import Zero
from msekit.errors import StoppedError, UnfinishedRunError
from msekit.evaluation.metrics import goodness
from msekit.evaluation.scoring import SHUFFLE_SEED, Scores, score_split
from msekit.process import deterministic, flush_denormals, seed_everything
from msekit.reporter import Reporter
from msekit.runs.config import write_config
from msekit.runs.files import METRICS, write_lines
from msekit.runs.finished import finished_report
from msekit.runs.go_on import is_reused
from msekit.runs.lock import held_for_training
from msekit.runs.progress import Progress
from msekit.settings.config import RunConfig
from msekit.training.build import Parts, build, training_subset
from msekit.training.callbacks import Callback
from msekit.training.checkpoint import State, clocks, save_state
from msekit.training.decisions import as_decided
from msekit.training.engine import engine_for
from msekit.training.epoch_line import epoch_in_words, epoch_line
from msekit.training.fit import fitted
from msekit.training.identity import run_key
from msekit.training.loss_scale import goes_on
from msekit.training.moving_average import Average
from msekit.training.opinion import fit_llm_weight, of_epoch, train_opinion
from msekit.training.optim import learning_rate
from msekit.training.outcome import Outcome, finish, llm_weight, save_best
from msekit.training.pace import Pace
from msekit.training.resume import has_state, restore
from msekit.training.signals import Asking, callback_failed, heed_signals, stopped
from msekit.training.step import Launched, Step, read_steps
from msekit.training.watching import Watch


def train(
    config: RunConfig,
    resume: bool = False,
    reporter: Reporter | None = None,
    callbacks: Sequence[Callback] = (),
    test: bool = True,
) -> dict[str, Any]:
    """Train one seed, test its best epoch, and leave a run folder.

    Args:
        config: The resolved run.
        resume: Continue the run that the folder holds, if it holds one; a finished one is reused, or
            goes on where it is asked for more epochs.
        reporter: Where progress goes; None for the terminal.
        callbacks: Told what happens, in the main process.
        test: Open and score the test split too; otherwise the run stays one to be resumed, which then tests.

    Returns:
        The content of `report.json`; without a test nothing.

    Raises:
        MsekitError: Bad input; raised before anything is trained.
        UnfinishedRunError: The loss became non-finite, a signal asked to stop, or another process is gone.
    """
    config = fitted(config, resume)
    if is_reused(config, resume):
        return finished_report(config, reporter)
    checkpoint_folder(config.backbone)  # once processes have joined, the first of them alone could build one
    accelerator = accelerator_for(default_device(), config.timeout_minutes)
    with ExitStack() as held:
        on_main(accelerator, lambda: held.enter_context(held_for_training(config.output, resume)))
        reporter = reporter if reporter and accelerator.is_main_process else Reporter(not accelerator.is_main_process)
        signals = held.enter_context(StopSignals())
        held.enter_context(deterministic(config.optim.deterministic))
        held.enter_context(naming_lost_processes(accelerator, config.output))
        heed = partial(heed_signals, accelerator, signals)
        parts = build(config, reporter, SPLITS if test else SPLITS[:2], heed=heed)
        flush_denormals()
        seed_everything(config.seed)
        stopped = resume and has_state(config, accelerator)
        alone = 0.0
        if not stopped:
            alone = train_opinion(config, parts, reporter, heed)
        run = Run(config, parts, accelerator, reporter, signals)
        run.progress.opinion_seconds = alone
        if stopped:
            run.restore()
        if accelerator.is_main_process:
            write_config(as_decided(config, parts))
        held.enter_context(run.watch.opened(callbacks))
        run.fit()
        report = run.test() if test else {}
    if signals.failure is not None:
        raise callback_failed(signals, "; the run is finished", config.output)
    return report


class Run:
    """One training run in progress.

    Args:
        config: The resolved run.
        parts: What `build` made of it.
        accelerator: This process's part in the run.
        reporter: Where progress goes.
        signals: Asks whether to stop; None for never.
    """

    def __init__(
        self,
        config: RunConfig,
        parts: Parts,
        accelerator: Any,
        reporter: Reporter,
        signals: StopSignals | None = None,
    ) -> None:
        self.config, self.parts, self.accelerator, self.reporter = config, parts, accelerator, reporter
        self.signals = signals or StopSignals()
        self.asking = Asking(accelerator, self.signals)
        self.adapter = parts.model.adapter
        self.engine = engine_for(parts.model, accelerator, config.optim, Zero.asked_for())
        if config.data.on_missing == "drop" and (dropped := parts.incomplete("train")):
            reporter.note(f"{dropped} training samples lack a modality and are left out (--on-missing drop)")
        self.subset = training_subset(parts, config)
        self.collator = parts.collators["train"]
        self.average = Average(self.adapter, config.optim.ema) if config.optim.ema else None
        tokens, frames = self.collator.lengths()
        self.lengths = tokens[self.subset], frames[self.subset]
        batches = -(-len(self.subset) // config.optim.batch_size)
        self.total_steps = batches * config.optim.epochs
        self.pace = Pace(config.seed, config.optim.epochs, len(self.subset), self.total_steps, reporter)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.run_key = run_key(config, parts)
        self.weights_before = parts.backbone.first_weights
        self.last_saved = time.monotonic()
        self.watch = Watch(self)

    def restore(self) -> None:
        """Go back to the saved state."""
        restore(self)

    def fit(self) -> None:
        """Epochs until the schedule's end or until patience runs out."""
        progress = self.progress
        while not progress.finished:
            left = self.begin_epoch()[progress.batch :]
            made = ahead(self.collate, left)
            bar = self.reporter.bar(self.pace.epoch(progress), len(self.subset), progress.samples)
            with closing(made), bar as advance:
                for batch in left:
                    started = clocks()
                    step = self.step(next(made), len(batch))
                    self.count(step, len(batch), clocks() - started)
                    advance(len(batch), self.pace.figures(progress))
                    self.heed(step)
            self.validate()
            self.end_epoch()

    def begin_epoch(self) -> list[list[int]]:
        """The current epoch's batches, positions in the split; from now on its own noise and dropout."""
        self.adapter.train()
        config, epoch = self.config, self.progress.epoch
        self.collator = of_epoch(self.parts.collators["train"], config, epoch)
        batches = global_batches(*self.lengths, config.optim.batch_size, config.seed, epoch)
        return [self.subset[batch].tolist() for batch in batches]

    def collate(self, batch: list[int]) -> list[Batch]:
        """This process's share of a global batch, in the parts that it is computed in; on the CPU still."""
        world, parts = self.accelerator.num_processes, self.config.optim.accumulation
        shares = micro_batches(batch, self.accelerator.process_index, world, parts)
        device = self.parts.backbone.device
        return [self.collator(*share).pinned_for(device) for share in shares]

    def step(self, parts: list[Batch], samples: int) -> Step:
        """One optimiser step on a global batch of so many samples, in the parts that `collate` made of it."""
        device = self.parts.backbone.device
        loss = torch.zeros((), device=device)
        for number, part in enumerate(parts, start=1):
            loss += self.engine.backward(part.to(device), 1 / samples, last=number == len(parts))
        rate = self.rate
        (step,) = read_steps(self.accelerator, [self.launched(loss, self.engine.step(rate), rate)])
        return self.checked(step)

    def launched(self, loss: Tensor, norm: Tensor, rate: float) -> Launched:
        """A step that the device was given to compute, with what this process has to say besides."""
        due = time.monotonic() - self.last_saved > 60 * self.config.save_minutes
        return Launched(loss, norm, rate, due, self.signals.received)

    def count(self, step: Step, samples: int, clock: np.ndarray) -> None:
        """A step that was taken on so many samples, with its seconds of wall time and of processor time."""
        self.progress.count(samples, step.loss, *clock)
        self.watch.step(step, samples, float(clock[0]))

    @property
    def rate(self) -> float:
        """The learning rate of the next step; a skipped one is none, so that the first that is taken has rate zero."""
        optim, taken = self.config.optim, self.progress.step - self.progress.skipped
        return learning_rate(taken, self.total_steps, optim.warmup, optim.lr)

    def checked(self, step: Step) -> Step:
        """A step on which all processes agree, which the moving average then takes in.

        Raises:
            UnfinishedRunError: The loss or the gradient is not finite, and not for its scale; the engine then changed
                nothing.
        """
        if not goes_on(self.progress, step.loss, step.norm, self.engine.loss_scale is not None):
            self.stop_on(f"loss became {step.loss}, its gradient's norm {step.norm}")
        if self.average is not None:
            self.average.update(self.progress.step + 1)
        return step

    def heed(self, step: Step) -> None:
        """Save the state where it is time to, and stop where a signal asks to."""
        if step.save_now or step.stop_now:
            self.save()
        if step.stop_now:
            self.stop_for_signal()

    def stop_for_signal(self) -> None:
        """End in good order; the state has been saved."""
        raise stopped(self.progress, self.signals, self.config.output)

    def heed_signals(self) -> None:
        """Between the batches of a validation: all processes stop if one was asked to; `fit` then saves."""
        if self.asking():
            self.stop_for_signal()

    def stop_on(self, what: str) -> None:
        """End a run whose numbers are not finite; the last saved state stays good."""
        raise UnfinishedRunError(
            f"the {what} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}",
            where=self.config.output,
            fix="Lower optim.lr or use another model.dtype; `msekit data info` shows unusual features.",
        )

    def end_epoch(self) -> None:
        """Decide whether the epoch was the last one; save."""
        waited = self.progress.epoch - self.progress.best_epoch
        out_of_time = self.progress.epoch >= self.config.optim.epochs
        self.progress.finished = out_of_time or waited >= self.config.optim.patience
        self.save()

    def validate(self) -> None:
        """Score the validation split and judge the epoch by it."""
        try:
            with self.averaged():
                self.judge(self.score("valid", f"{self.pace.epoch(self.progress)}, validation"))
        except StoppedError:  # by now the adapter is the training's own again
            self.save()
            raise

    def averaged(self) -> AbstractContextManager[None]:
        """While an epoch is judged: the average of the weights in the adapter's place, if one is kept."""
        return self.average.in_place() if self.average else nullcontext()

    def judge(self, scores: Scores) -> None:
        """Keep the adapter if its validation scores are the best so far, log the epoch."""
        progress, spec, estimate = self.progress, self.parts.spec, self.config.evaluation.estimate
        if np.isnan(scores.edges).any():
            self.stop_on("label scores became nan")
        scores = fit_llm_weight(self.parts.model, scores)
        metrics = scores.metrics(spec, estimate)
        value = metrics[spec.key_metric]
        better = not self.best or goodness(spec.key_metric, value) > goodness(spec.key_metric, progress.best_value)
        if better:
            progress.best_epoch, progress.best_value = progress.epoch + 1, value
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.adapter.state_dict().items()}
        weight = None if scores.llm is None else llm_weight(self.parts)
        line = epoch_line(progress, metrics, scores.loss(), better, weight, self.engine.loss_scale is not None)
        progress.end_epoch(line)
        self.reporter.note(f"seed {self.config.seed}  {epoch_in_words(line, spec.key_metric, progress.skipped)}")
        if (label := scores.collapsed(estimate)) is not None:
            self.reporter.warn(f"seed {self.config.seed}: every validation sample is predicted as '{label}'")
        self.watch.epoch(line)

    def score(self, split: str, title: str, shuffled: bool = False) -> Scores:
        """Label scores of a split by the adapter as it stands; `shuffled`: with the frames of other samples."""
        size, model, collator = self.parts.evaluation_batch, self.parts.model, self.parts.collators[split]
        if shuffled:
            collator = collator.shuffled(SHUFFLE_SEED)
        return score_split(model, collator, size, self.accelerator, self.reporter, title, self.heed_signals)

    def save(self) -> None:
        """Write what a resumed run needs, and the best adapter as a usable file."""
        moments = self.engine.moments()
        self.watch.flush()
        if self.accelerator.is_main_process:
            if self.progress.history:
                write_lines(self.config.output / METRICS, self.progress.history)
                save_best(self.config, self.parts, self.best)
            average = self.average.tensors if self.average else {}
            dtype = str(self.parts.backbone.model.dtype).removeprefix("torch.")
            state = State(self.adapter, moments, self.best, self.progress, self.run_key.written, average, dtype)
            save_state(self.config.output, state)
        self.accelerator.wait_for_everyone()
        self.last_saved = time.monotonic()
        self.watch.saved()

    def test(self) -> dict[str, Any]:
        """Test the best adapter and write the report."""
        self.load_best()
        scores, shuffled = self.score("test", f"seed {self.config.seed}, test"), None
        if self.tests_shuffled:
            shuffled = self.score("test", f"seed {self.config.seed}, test, audio and vision shuffled", shuffled=True)
        return self.report(scores, shuffled, self.check_backbone())

    def load_best(self) -> None:
        """Put the best epoch's adapter in place."""
        assert self.best, "a run ends with a best epoch"
        self.adapter.load_state_dict(self.best)

    @property
    def tests_shuffled(self) -> bool:
        """Whether the test is repeated with every sample's audio and vision taken from another one."""
        reads = self.config.reads_features and (self.adapter.audio_dim or self.adapter.vision_dim)
        return bool(self.config.evaluation.integrity and reads)

    def check_backbone(self) -> dict[str, str]:
        """Frozen means frozen; the fingerprints of the weights before and after."""
        weights_after = fingerprint_model(self.parts.backbone.model)
        assert weights_after == self.weights_before, "the frozen backbone changed"
        return {"before": self.weights_before, "after": weights_after}

    def report(self, scores: Scores, shuffled: Scores | None, weights: dict[str, str]) -> dict[str, Any]:
        """Write predictions and report."""
        outcome = Outcome(scores, shuffled, self.progress, weights)
        report = finish(self.config, self.parts, outcome, self.reporter, self.accelerator.is_main_process)
        self.watch.ended(report)
        return report

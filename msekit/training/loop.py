"""train(config): build, prepare, loop, step, validate, stop, test. The whole story.

One loop for one process or many. A run's trajectory depends on its config alone: the order of the samples is a
function of seed and epoch, so a run that was killed and resumed ends with the same adapter as an undisturbed one.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msekit.backbones.fingerprint import fingerprint_model
from msekit.backbones.precision import default_device
from msekit.data.batches.ahead import ahead
from msekit.data.batches.batch import Batch, global_batches, micro_batches
from msekit.distributed.accelerator import StopSignals, accelerator_for, naming_lost_processes, on_main
from msekit.distributed.zero import Zero
from msekit.errors import StoppedError, UnfinishedRunError
from msekit.evaluation.metrics import higher_is_better
from msekit.evaluation.scoring import SHUFFLE_SEED, Scores, score_split
from msekit.evaluation.units import show
from msekit.process import deterministic, flush_denormals, seed_everything
from msekit.reporter import Reporter
from msekit.runs.config import write_config
from msekit.runs.files import METRICS, REPORT, write_lines
from msekit.runs.finished import finished_report
from msekit.runs.lock import held_for_training
from msekit.settings.config import RunConfig
from msekit.training.build import Parts, build, training_subset
from msekit.training.checkpoint import Progress, State, clocks, load_state, save_state
from msekit.training.decisions import as_decided
from msekit.training.engine import engine_for
from msekit.training.fit import fitted
from msekit.training.identity import run_key
from msekit.training.loss_scale import goes_on
from msekit.training.moving_average import Average
from msekit.training.opinion import fit_llm_weight, of_epoch, train_opinion
from msekit.training.optim import learning_rate
from msekit.training.outcome import Outcome, finish, llm_weight, save_best
from msekit.training.resume import has_state, refuse_other_run
from msekit.training.signals import Asking, heed_signals
from msekit.training.step import Launched, Step, read_steps


def train(config: RunConfig, resume: bool = False, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train one seed, test its best epoch, and leave a run folder.

    Args:
        config: The resolved run.
        resume: Continue the run that the folder holds, if it holds one; a finished one is reused.
        reporter: Where progress goes; None for the terminal.

    Returns:
        The content of `report.json`.

    Raises:
        MsekitError: Bad input; raised before anything is trained.
        UnfinishedRunError: The loss became non-finite, a signal asked to stop, or another process is gone.
    """
    config = fitted(config, resume)
    if resume and (config.output / REPORT).is_file():
        return finished_report(config, reporter)
    accelerator = accelerator_for(default_device(), config.timeout_minutes)
    with ExitStack() as held:
        on_main(accelerator, lambda: held.enter_context(held_for_training(config.output, resume)))
        reporter = reporter if reporter and accelerator.is_main_process else Reporter(not accelerator.is_main_process)
        signals = held.enter_context(StopSignals())
        held.enter_context(deterministic(config.optim.deterministic))
        held.enter_context(naming_lost_processes(accelerator, config.output))
        parts = build(config, reporter)
        flush_denormals()
        seed_everything(config.seed)
        stopped = resume and has_state(config, accelerator)
        alone = 0.0
        if not stopped:
            alone = train_opinion(config, parts, reporter, partial(heed_signals, accelerator, parts, signals))
        run = Run(config, parts, accelerator, reporter, signals)
        run.progress.opinion_seconds = alone
        if stopped:
            run.restore()
        if accelerator.is_main_process:
            write_config(as_decided(config, parts))
        run.fit()
        return run.test()


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
        self.asking = Asking(accelerator, parts.backbone.device, self.signals)
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
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.run_key = run_key(config, parts)
        self.weights_before = parts.backbone.first_weights
        self.last_saved = time.monotonic()

    def restore(self) -> None:
        """Go back to the saved state."""
        refuse_other_run(self.config, self.parts)
        average = self.average.tensors if self.average else None
        self.progress, tensors = load_state(self.config.output, self.adapter, self.run_key, average)
        self.engine.restore(tensors["adapter"], tensors["optim"])
        self.best = tensors["best"]
        self.reporter.note(f"resuming after epoch {self.progress.epoch}, batch {self.progress.batch}")

    def fit(self) -> None:
        """Epochs until the schedule's end or until patience runs out."""
        progress = self.progress
        while not progress.finished:
            left = self.begin_epoch()[progress.batch :]
            made = ahead(self.collate, left)
            bar = self.reporter.bar(f"epoch {progress.epoch + 1}", len(self.subset), progress.samples)
            with closing(made), bar as advance:
                for batch in left:
                    started = clocks()
                    step = self.step(next(made), len(batch))
                    progress.count(len(batch), step.loss, *(clocks() - started))
                    advance(len(batch), f"loss {progress.mean_loss:.3f}  {progress.speed:.1f} samples/s")
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
        (step,) = read_steps(self.accelerator, [self.launched(loss, self.engine.step(self.rate))])
        return self.checked(step)

    def launched(self, loss: Tensor, norm: Tensor) -> Launched:
        """A step that the device was given to compute, with what this process has to say besides."""
        due = time.monotonic() - self.last_saved > 60 * self.config.save_minutes
        return Launched(loss, norm, due, self.signals.received)

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
        raise StoppedError(
            f"stopped by a signal after epoch {self.progress.epoch}, batch {self.progress.batch}; the state is saved",
            where=self.config.output,
            fix="Continue with the same command and --resume.",
        )

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
                self.judge(self.score("valid", f"epoch {self.progress.epoch + 1} validation"))
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
        sign = 1 if higher_is_better(spec.key_metric) else -1
        better = progress.best_value is None or sign * value > sign * progress.best_value
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if better:
            progress.best_epoch, progress.best_value = progress.epoch, value
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.adapter.state_dict().items()}
        line = {
            "epoch": progress.epoch,
            "train_loss": progress.mean_loss,
            "valid_loss": scores.loss(),
            "valid": metrics,
            "train_samples_per_s": progress.speed,
            "best": better,
        }
        beside = f"  {progress.skipped} steps skipped" if progress.skipped else ""
        if scores.llm is not None:
            line["llm_weight"] = llm_weight(self.parts)
            beside += f"  LLM weight {line['llm_weight']:.2f}"
        progress.loss_sum, progress.samples = 0.0, 0
        if self.engine.loss_scale is not None:
            line["skipped_steps"] = progress.skipped
        progress.history.append(line)
        self.reporter.note(
            f"epoch {progress.epoch:>3}  train loss {line['train_loss']:.3f}  valid loss {line['valid_loss']:.3f}  "
            f"{spec.key_metric} {show(spec.key_metric, value)}{beside}{'  (best)' if better else ''}"
        )
        if (label := scores.collapsed(estimate)) is not None:
            self.reporter.warn(f"every validation sample is predicted as '{label}'")

    def score(self, split: str, title: str, shuffled: bool = False) -> Scores:
        """Label scores of a split by the adapter as it stands; `shuffled`: with the frames of other samples."""
        size, model, collator = self.parts.evaluation_batch, self.parts.model, self.parts.collators[split]
        if shuffled:
            collator = collator.shuffled(SHUFFLE_SEED)
        return score_split(model, collator, size, self.accelerator, self.reporter, title, self.heed_signals)

    def save(self) -> None:
        """Write what a resumed run needs, and the best adapter as a usable file."""
        moments = self.engine.moments()
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

    def test(self) -> dict[str, Any]:
        """Test the best adapter and write the report."""
        self.load_best()
        scores, shuffled = self.score("test", "test"), None
        if self.tests_shuffled:
            shuffled = self.score("test", "test, audio and vision shuffled", shuffled=True)
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
        return finish(self.config, self.parts, outcome, self.reporter, self.accelerator.is_main_process)

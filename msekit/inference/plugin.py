"""PlugIn: a trained adapter on a loaded backbone, ready to predict one sample or many.

    run = msekit.load_run("runs/meld6-smollm2-135m")
    run.predict("Oh my God, you came!", audio="clip.npy").prediction

Batches hold samples of like length, are padded and masked, and give what each sample gives alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msekit.adapters.interface import Adapter, OpinionatedAdapter
from msekit.backbones.backbone import Backbone
from msekit.data.batches.batch import Collator, evaluation_batches
from msekit.errors import MsekitError
from msekit.inference.restore import usable_adapter
from msekit.inference.samples import Prepared, PreparedSamples, prepare_sample
from msekit.model.assemble import assemble
from msekit.model.labels import check_estimate
from msekit.model.text_states import FreshStates, states_wanted
from msekit.runs.description import Description, read_description
from msekit.runs.predictions import prediction_line

BATCH_SIZE = 16


@dataclass(frozen=True)
class Timing:
    """Where the time of one prediction went, in seconds."""

    preparation: float
    """Reading and checking the sample."""
    model: float
    """Adapter and backbone, for its whole batch."""
    batch: int
    """Samples of that batch."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one sample."""

    id: str
    prediction: str | float
    """The label's name, or the intensity."""
    scores: dict[str, float]
    """Label → probability; they sum to 1."""
    estimate: str
    """Which point estimate of the distribution the prediction is."""
    timing: Timing
    notes: tuple[str, ...]
    """What was done to the sample: text cut, values replaced, a modality left out."""

    def record(self) -> dict[str, Any]:
        """`{"id", "prediction", "scores"}`, as in `predictions-test.jsonl`."""
        return prediction_line(self.id, self.prediction, self.scores)


class PlugIn:
    """A trained adapter on a loaded backbone.

    Args:
        description: Its `adapter.json`.
        adapter: With its trained weights.
        backbone: The frozen LLM; may be shared with other plug-ins.
        notices: In what the backbone differs from the one trained on.
    """

    def __init__(
        self, description: Description, adapter: Adapter, backbone: Backbone, notices: tuple[str, ...] = ()
    ) -> None:
        if description.context:
            raise MsekitError(
                f"the plug-in was trained with {description.context} previous utterances as context, which predict "
                "does not take yet",
                fix="Use `msekit evaluate`, or a run without --context.",
            )
        self.description, self.backbone, self.notices = description, backbone, notices
        adapter.requires_grad_(False).eval()
        self.model = assemble(backbone, adapter, description.dataset, description.layout, description.text_limit)
        self.labels = self.model.labels
        self._states_wanted = None
        if isinstance(adapter, OpinionatedAdapter):
            self._states_wanted = states_wanted(description.adapter, description.dataset, backbone)
        if self.model.layout.sha256 != description.prompt_sha256:
            raise MsekitError("the plug-in was trained with another prompt", fix="Use the msekit that trained it.")

    @classmethod
    def from_pretrained(cls, run: str | Path, **settings: Any) -> PlugIn:
        """`msekit.load_run`, with its arguments and errors, under the name that other libraries have for it."""
        import msekit  # whose public name it is: `inference/load.py` knows this class, not the other way round

        return msekit.load_run(run, **settings)

    def predict(
        self,
        text: str | Sequence[str],
        audio: Any = None,
        vision: Any = None,
        *,
        ids: Sequence[str] | None = None,
        estimate: str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Any:
        """Predict one sample (a text) or many (a list of texts).

        Args:
            text: What was said.
            audio: (L, D) array, tensor or nested lists, or the path of a .npy, .npz or .safetensors file, or of a clip
                where training's features came from `msekit extract`; None where it is missing. For many samples a
                list of these, or None.
            vision: Likewise.
            ids: Names of the samples; None to number them.
            estimate: `greedy`, `argmax`, `mean` or `median`; None for the one the run was trained with.
            batch_size: Most samples computed together.

        Returns:
            One Prediction for a text, a list of them for a list, in its order.

        Raises:
            MsekitError: A sample that cannot be used, with its position.
        """
        single = isinstance(text, str)
        texts = [text] if single else list(text)
        columns = {"audio": audio, "vision": vision}
        lists = {key: [value] if single else _column(value, len(texts), key) for key, value in columns.items()}
        names = [str(number) for number in range(len(texts))] if ids is None else list(map(str, ids))
        if len(names) != len(texts):
            raise MsekitError(f"{len(names)} ids for {len(texts)} texts")
        samples = [
            prepare_sample(
                self.description,
                names[number],
                sample_text,
                {key: values[number] for key, values in lists.items()},
                None if single else f"sample {number}",
            )
            for number, sample_text in enumerate(texts)
        ]
        predictions = self.predict_prepared(samples, estimate, batch_size)
        return predictions[0] if single else predictions

    def predict_prepared(
        self, samples: Sequence[Prepared], estimate: str | None = None, batch_size: int = BATCH_SIZE
    ) -> list[Prediction]:
        """Predict samples that `prepare_sample` made, in their order.

        Raises:
            MsekitError: An estimate that does not fit the task, or a batch size below 1.
        """
        estimate = estimate or self.description.estimate
        check_estimate(self.description.dataset.task, estimate)
        if batch_size < 1:
            raise MsekitError(f"a batch size is at least 1, not {batch_size}")
        answers: dict[int, Prediction] = {}
        for positions, edges_BE, cut_B, seconds in self._scored(samples, batch_size):
            values_B = self.labels.predict(edges_BE, estimate)  # type: ignore[arg-type]
            for row, (position, scores_K) in enumerate(zip(positions, self.labels.distribution(edges_BE), strict=True)):
                sample = samples[position]
                limit = self.description.text_limit
                answers[position] = Prediction(
                    sample.id,
                    self._named(values_B[row]),
                    dict(zip(self.labels.names, scores_K.tolist(), strict=True)),
                    estimate,
                    Timing(sample.seconds, seconds, len(positions)),
                    sample.notes + ((f"the text was cut to {limit} tokens",) if cut_B[row] else ()),
                )
        return [answers[position] for position in range(len(samples))]

    def write(self, text: str, audio: Any = None, vision: Any = None, **options: Any) -> str:
        """The answer to one sample as the LLM writes it, token by token, held to the labels and to the opinion.

        Greedily it is what `predict` says with the estimate `greedy`; options such as `do_sample` and `num_beams` let
        the LLM decode otherwise.

        Args:
            text: What was said.
            audio: See `predict`.
            vision: See `predict`.
            options: Of transformers' `generate`.

        Raises:
            MsekitError: A sample that cannot be used.
        """
        from msekit.model.decoding import write_answers

        sample = prepare_sample(self.description, "0", text, {"audio": audio, "vision": vision})
        with self.backbone.lock:
            batch = self._collator([sample], [self.backbone.encode(sample.text)])([0]).to(self.backbone.device)
            (answer,) = write_answers(self.model, batch, **options)
        return answer

    def _collator(self, samples: Sequence[Prepared], encoded: list[list[int]]) -> Collator:
        """Samples as the adapter reads them; the caller has the backbone's lock."""
        ways, texts = self.description.features, [ids[: self.description.text_limit] for ids in encoded]
        collator = Collator(
            PreparedSamples(samples), texts, np.zeros(len(samples), np.int64), ways["audio"], ways["vision"]
        )
        if self._states_wanted is None:
            return collator
        states = FreshStates(self.backbone, texts, None, self._states_wanted)
        return replace(collator.summarised(), states=states)

    def _scored(
        self, samples: Sequence[Prepared], batch_size: int
    ) -> Iterator[tuple[list[int], np.ndarray, list[bool], float]]:
        """Batches of like length: positions, edge log-probabilities (B, E), texts that were cut, seconds."""
        limit = self.description.text_limit
        with self.backbone.lock:
            encoded = [self.backbone.encode(sample.text) for sample in samples]
            start = time.perf_counter()
            collator = self._collator(samples, encoded)
            each = (time.perf_counter() - start) / max(len(samples), 1)  # the LLM's pass for hidden states
        for positions in evaluation_batches(*collator.lengths(), batch_size, 0, 1):
            start = time.perf_counter()
            batch = collator(positions)
            with self.backbone.lock:
                edges_BE = self.model.score(batch.to(self.backbone.device)).cpu().numpy()
            cut_B = [len(encoded[position]) > limit for position in positions]
            yield positions, edges_BE, cut_B, time.perf_counter() - start + each * len(positions)

    def _named(self, value: float) -> str | float:
        labels = self.description.dataset.labels
        return labels[int(value)] if labels else float(value)

    def tensor_bytes(self) -> int:
        """Bytes of all tensors that this plug-in holds beside the backbone."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _column(values: Any, size: int, key: str) -> list[Any]:
    if values is None:
        return [None] * size
    if isinstance(values, (str, Path)) or len(values) != size:
        count = "one value" if isinstance(values, (str, Path)) else f"{len(values)} values"
        raise MsekitError(f"{count} of {key} for {size} texts", fix="Give a list of the same length, or None.")
    return list(values)


def read_plug_in(folder: Path, backbone: Backbone, force: bool = False) -> PlugIn:
    """Put a folder's plug-in on a backbone that is loaded already. Nothing in the folder is executed.

    Args:
        folder: Holds `adapter.json` and `adapter.safetensors`.
        backbone: The LLM.
        force: Accept a backbone whose fingerprint differs from the one trained on.

    Raises:
        MsekitError: Damaged files, tensors that do not fit, another backbone.
    """
    description = read_description(folder)
    same = description.backbone.fingerprint == backbone.fingerprint
    if not same and not force:
        raise MsekitError(
            f"the plug-in was trained on other weights than these of '{backbone.name}': '{description.backbone.name}', "
            f"fingerprint {description.backbone.fingerprint[:12]}…, not {backbone.fingerprint[:12]}…",
            where=folder,
            fix="Load that backbone; force=True (--force) uses this one all the same.",
        )
    if description.text_dim != backbone.text_dim:
        raise MsekitError(
            f"the plug-in is for embeddings of width {description.text_dim}, '{backbone.name}' has {backbone.text_dim}",
            where=folder,
        )
    trained, here = description.backbone.quantization, quantization_of(backbone)
    notices: tuple[str, ...] = ()
    if not same:
        notices += ("the backbone's weights are not those that the plug-in was trained on",)
    if (otherwise := description.backbone.read_otherwise(backbone.configuration)) is not None:
        notices += (otherwise,)
    if trained != here:
        notices += (f"trained with quantization {trained}, used with {here}: scores differ a little",)
    trained_in, held_in = description.backbone.dtype, str(backbone.model.dtype).removeprefix("torch.")
    if trained_in not in (None, held_in):
        notices += (f"trained in {trained_in}, used in {held_in}: scores differ a little",)
    return PlugIn(description, usable_adapter(folder, description), backbone, notices)


def quantization_of(backbone: Backbone) -> str:
    """`none`, `int8` or `nf4`: how a loaded backbone is held."""
    settings = getattr(backbone.model.config, "quantization_config", None)
    if settings is None:
        return "none"
    return "int8" if settings.load_in_8bit else "nf4"
